"""What :mod:`tests.helpers.shrink` makes small in a config of METER."""

import json
from pathlib import Path

from mmengine.config import ConfigDict
from transformers import AutoConfig, AutoModelForMaskedLM, CLIPConfig, CLIPModel

from lm4ve.demo_data.easy_vqa import locate_easy_vqa
from tests.helpers import shrink
from tests.helpers.vqa import files
from tests.helpers.vqa.tiny import IMAGE, SIZE, TEXT, write_tokenizer

#: The width of the fusion.
WIDTH = 16
#: How many embedded scenes there are.
SCENES = dict(train=4, val=2, test=4)


def write_clip(folder: Path) -> Path:
    """Write a tiny CLIP as the hub has it: both halves, of which one is used."""
    text = dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = CLIPModel(CLIPConfig(vision_config=IMAGE, text_config=text))
    model.save_pretrained(folder)
    return folder


def write_roberta(folder: Path) -> Path:
    """Write a tiny RoBERTa as the hub has it, with its tokenizer."""
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(**TEXT))
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_easy_vqa(site: Path) -> None:
    """Write the package easy-vqa as it is installed, with a few of its questions.

    All of them (48,248) are read by ``test_demo.py``.
    """
    whole = locate_easy_vqa()
    for split in ('train', 'test'):
        part = site / 'easy_vqa/data' / split
        part.mkdir(parents=True)
        (part / 'images').symlink_to(whole / split / 'images')
        rows = json.loads((whole / split / 'questions.json').read_text())
        # Those of 'fit' come first, those of 'val' last.
        (part / 'questions.json').write_text(json.dumps(rows[:50] + rows[-50:]))
    metadata = site / 'easy_vqa-1.0.dist-info/METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Metadata-Version: 2.1\nName: easy-vqa\nVersion: 1.0\n')


def _write_vqav2(vocabulary: Path) -> None:
    """Write COCO's folder with the questions, where the vocabulary is a file of it."""
    files.write_vqav2(vocabulary.parents[1])


class Shrinker(shrink.Shrinker):
    """Shrinks images to 32 pixels and every part to two layers. The demos' models are small."""

    task = 'vqa'
    metric = 'vqa/overall'

    def enter(self, patch):
        super().enter(patch)
        patch.syspath_prepend(self.provide('site', write_easy_vqa))

    def shrink(self, cfg, epochs=1):
        super().shrink(cfg, epochs)
        if cfg.get('auto_scale_lr') is not None:
            # An iteration is an update, as with METER's batch on one GPU.
            cfg.auto_scale_lr.base_batch_size = cfg.train_dataloader.batch_size
        answers = cfg.model.head.type == 'lm4ve.VQAHead'
        self.metric = 'vqa/overall' if answers else 'retrieval/mean'

    def model(self, model: ConfigDict) -> int:
        if model.text_encoder.get('checkpoint', '').startswith('package:'):
            return model.fusion.embed_dims
        clip = self.repository(model.image_encoder.checkpoint, write_clip)
        roberta = self.repository(model.text_encoder.checkpoint, write_roberta)
        self.weights += [clip / 'model.safetensors', roberta / 'model.safetensors']
        model.data_preprocessor.max_length = 20
        model.image_encoder.image_size = SIZE
        model.fusion.update(embed_dims=WIDTH, num_layers=2, num_heads=2)
        model.head.in_channels = 2 * WIDTH
        if 'vocabulary' in model.head:
            self.provide(model.head.vocabulary, _write_vqav2)
        return WIDTH

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 2
        self._dataset(loader.dataset)

    def _dataset(self, dataset: ConfigDict) -> None:
        for part in dataset.get('datasets', ()):
            self._dataset(part)
        if 'vocabulary' in dataset:
            self.provide(dataset.vocabulary, _write_vqav2)
        if dataset.type == 'lm4ve.EasyVQA':
            dataset.indices = 8
        elif dataset.type == 'lm4ve.DigitScenes':
            dataset.scenes = SCENES
        elif dataset.type == 'lm4ve.VQAv2':
            self.provide('data/coco/vqav2/vocabulary.json', _write_vqav2)
        elif dataset.type == 'lm4ve.VisualGenomeQA':
            self.provide('data/visual_genome', files.write_visual_genome)
        elif dataset.type == 'lm4ve.KarpathyRetrieval':
            write = files.write_flickr30k
            if 'coco' in dataset.ann_file:
                write = files.write_coco
            listed = f'{dataset.data_root}/{dataset.ann_file}'
            self.provide(listed, lambda path: write(path.parent))
            dataset.num_negatives = 2
        shrink.shrink_images(dataset.get('pipeline', []))
