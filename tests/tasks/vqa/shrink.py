"""What :mod:`tests.helpers.shrink` makes small in a config of METER."""

from pathlib import Path

from mmengine.config import ConfigDict
from transformers import AutoConfig, AutoModelForMaskedLM, CLIPConfig, CLIPModel

from lm4ve.tasks.vqa.demo.digit_scenes import write_digit_scenes
from tests.helpers import shrink
from tests.tasks.vqa import files
from tests.tasks.vqa.tiny import IMAGE, SIZE, TEXT, write_tokenizer

#: The width of the fusion, and how many embedded scenes there are.
WIDTH, SCENES = 16, dict(train=4, val=2, test=4)


def write_clip(folder: Path) -> Path:
    """Write a tiny CLIP as the hub has it: both halves, of which one is used."""
    text = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    CLIPModel(CLIPConfig(vision_config=IMAGE, text_config=text)).save_pretrained(folder)
    return folder


def write_roberta(folder: Path) -> Path:
    """Write a tiny RoBERTa as the hub has it, with its tokenizer."""
    AutoModelForMaskedLM.from_config(AutoConfig.for_model(**TEXT)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


class Shrinker(shrink.Shrinker):
    """Shrinks images to 32 pixels and every part to two layers. The demos' models are small."""

    task = 'vqa'
    metric = 'vqa/overall'

    def load(self, name, *args, **options):
        cfg = super().load(name, *args, **options)
        answers = cfg.model.head.type == 'lm4ve.VQAHead'
        self.metric = 'vqa/overall' if answers else 'retrieval/mean'
        if cfg.test_evaluator.get('result_file') is not None:
            cfg.test_evaluator.result_file = f'{cfg.work_dir}/results.json'
        return cfg

    def model(self, model: ConfigDict) -> int:
        if model.text_encoder.get('checkpoint', '').startswith('package:'):
            return model.fusion.embed_dims
        roberta = self.written('roberta', write_roberta)
        model.data_preprocessor.update(tokenizer=roberta, max_length=20)
        model.image_encoder.update(checkpoint=self.written('clip', write_clip), image_size=SIZE)
        model.text_encoder.checkpoint = roberta
        model.fusion.update(embed_dims=WIDTH, num_layers=2, num_heads=2)
        model.head.in_channels = 2 * WIDTH
        if 'vocabulary' in model.head:
            root = self.written('coco', files.write_vqav2)
            model.head.vocabulary = f'{root}/vqav2/vocabulary.json'
        return WIDTH

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 2
        self._dataset(loader.dataset)

    def _dataset(self, dataset: ConfigDict) -> None:
        for part in dataset.get('datasets', ()):
            self._dataset(part)
        if 'vocabulary' in dataset:
            root = self.written('coco', files.write_vqav2)
            dataset.vocabulary = f'{root}/vqav2/vocabulary.json'
        if dataset.type == 'lm4ve.EasyVQA':
            dataset.indices = 8
        elif dataset.type == 'lm4ve.DigitScenes':
            folder = self.written('digit-scenes', lambda f: write_digit_scenes(f, SCENES))
            dataset.update(data_root=folder, scenes=SCENES)
        elif dataset.type == 'lm4ve.VQAv2':
            dataset.data_root = self.written('coco', files.write_vqav2)
        elif dataset.type == 'lm4ve.VisualGenomeQA':
            dataset.data_root = self.written('genome', files.write_visual_genome)
        elif dataset.type == 'lm4ve.KarpathyRetrieval':
            name = 'coco' if 'coco' in dataset.ann_file else 'flickr30k'
            write = getattr(files, f'write_{name}')
            dataset.update(data_root=self.written(f'karpathy/{name}', write), num_negatives=2)
        shrink.shrink_images(dataset.get('pipeline', []))
