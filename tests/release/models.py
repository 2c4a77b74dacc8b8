"""A small model of every task as a config and a checkpoint, and what it predicts."""

from pathlib import Path

import torch
from mmengine.registry import MODELS

from lm4ve.analysis.loading import load_model
from lm4ve.runner.config import read_config
from tests.helpers.tiny_runs import PLACE, write_runs
from tests.tasks.vqa import tiny

HEADS = dict(
    vqa=dict(type='lm4ve.VQAHead', vocabulary=tiny.ANSWERS, in_channels=32),
    retrieval=dict(type='lm4ve.RetrievalHead', in_channels=32),
)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.Resize', scale=(tiny.SIZE, tiny.SIZE)),
    dict(type='lm4ve.PackVisionLanguage'),
]


def write_models(folder: Path) -> None:
    """Put the configs and checkpoints where :func:`paths_of` says."""
    write_runs(folder, 'vit_frozen', 'vit_mlp', 'videomae', 'pointbert', 'vectornet')
    tokenizer = tiny.write_tokenizer(folder / 'tokenizer')
    for name, head in HEADS.items():
        cfg = tiny.meter_config(tokenizer, True, head=head)
        (folder / f'{name}.py').write_text(
            f'model = {cfg!r}\ntest_dataloader = dict('
            f'dataset=dict(type="lm4ve.VQAFiles", pipeline={PIPELINE!r}))\n'
        )
        torch.manual_seed(3)
        model = MODELS.build(cfg)
        for p in model.parameters():  # as large as after training, or nothing would be seen
            if p.requires_grad and p.dim() > 1:
                torch.nn.init.normal_(p, std=0.3)
        torch.save(dict(state_dict=model.state_dict()), folder / f'{name}.pth')


def paths_of(name: str) -> tuple[str, str]:
    """Return a model's config and checkpoint."""
    stem = name if name in HEADS else f'{PLACE}/{name}'
    return f'{stem}.py', f'{stem}.pth'


def loaded(name: str) -> torch.nn.Module:
    config, checkpoint = paths_of(name)
    return load_model(read_config(config), checkpoint, 'cpu')[0]


# ------------------------------------------------------------------ batches, predictions
def image(model, count):
    from mmpretrain.structures import DataSample

    pixels = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8)
    data = dict(inputs=pixels, data_samples=[DataSample() for _ in range(count)])
    scores = torch.stack([s.pred_score for s in model.test_step(data)])
    return (pixels,), scores, lambda logits: logits.softmax(-1)


def video(model, count):
    from mmaction.structures import ActionDataSample

    clips = torch.randint(256, (count, 1, 3, 4, 32, 32), dtype=torch.uint8)
    data = dict(inputs=list(clips), data_samples=[ActionDataSample() for _ in range(count)])
    return (clips,), torch.stack([s.pred_score for s in model.test_step(data)]), lambda x: x


def pointcloud(model, count):
    clouds = torch.randn(count, 48, 3)
    outputs = model.test_step(dict(inputs=list(clouds)))
    return (clouds,), torch.stack([s.pred_logits for s in outputs]), lambda x: x


def motion(model, count):
    from lm4ve.tasks.motion import Argoverse1Reader, VectorizeScene, collate_scenes
    from lm4ve.tasks.motion.demo.traffic_files import write_argoverse1

    if not Path('traffic').is_dir():
        write_argoverse1(Path('traffic'), dict(val=2))
    reader = Argoverse1Reader('traffic/val/data', 'traffic/map_files')
    scenes, vectorize = [reader.read(f) for f in reader.files()], VectorizeScene(lane_range=50)
    data = collate_scenes([vectorize(dict(scene=scenes[i % len(scenes)])) for i in range(count)])
    given = dict(data['inputs'])
    kept = ('agents', 'agents_valid', 'agent_padding', 'lanes', 'lane_attributes', 'lane_padding')
    tensors = tuple(given[k] for k in (*kept, 'queries'))
    outputs = model.test_step(data)
    expected = torch.tensor([s['probabilities'] for s in outputs])
    return tensors, expected, lambda _, scores: scores[:, 0].softmax(-1).sort(descending=True)[0]


def vision_language(model, count):
    words = ['what color', 'is the cat on mat', 'a red dog', 'two black cat', 'mat']
    data = tiny.batch([[words[i]] for i in range(count)])
    pixels = torch.stack(data['inputs'])
    ids, padding = model.data_preprocessor.tokenize(words[:count])
    scores = torch.stack([s.pred_scores for s in model.test_step(data)])
    if not hasattr(model.head, 'vocabulary'):
        return (pixels, ids, padding), scores[:, 0], lambda x: x
    return (pixels, ids, padding), scores, lambda x: x.sigmoid()


#: Name of a model -> its batches and what a test of the model says of them.
MODELS_OF = dict(
    vit_frozen=image,
    videomae=video,
    pointbert=pointcloud,
    vectornet=motion,
    vqa=vision_language,
    retrieval=vision_language,
)
