"""A host's config made small: a few pictures, thin models, two iterations."""

from argparse import Namespace
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from lm4ve.runner.command_line import build_runner, finish_config
from tests.helpers.config_runs import train
from tests.helpers.models import BLOCK
from tests.tasks.vqa.files import write_image, write_json

SIDE = 64
write_picture = partial(write_image, size=(SIDE, SIDE))


def write_coco(folder: Path, split: str, count: int, classes: tuple[str, ...]) -> None:
    """COCO's layout: pictures, and one file with a box of one of two classes for each."""
    names = [f'{i:012d}.jpg' for i in range(count)]
    images = [dict(id=i, file_name=n, width=SIDE, height=SIDE) for i, n in enumerate(names)]
    box = dict(bbox=[8, 8, 32, 24], area=768, iscrowd=0, segmentation=[])
    boxes = [dict(box, id=i, image_id=i, category_id=1 + i % 2) for i in range(count)]
    for i, name in enumerate(names):
        write_picture(folder / f'{split}2017' / name, i)
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    content = dict(images=images, annotations=boxes, categories=categories)
    write_json(folder / f'annotations/instances_{split}2017.json', content)


def shrink(cfg: Config, work_dir: Path, data: Path, width: int, **steps) -> None:
    """Everything but the model's own parts and the picture sizes."""
    cfg.train_cfg.update(steps)
    cfg.default_hooks.checkpoint.interval = steps['val_interval']
    cfg.update(work_dir=str(work_dir), load_from=None, log_level='WARNING', launcher='none')
    cfg.visualizer.vis_backends = []
    cfg.model.backbone.neck.in_channels = width
    cfg.model.backbone.neck.block = ConfigDict(BLOCK)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.batch_size = 2 if split == 'train' else 1
        loader.dataset.data_root = str(data)
        for transform in loader.dataset.pipeline:
            sizes = {'scale', 'crop_size'} & transform.keys()
            transform.update(dict.fromkeys(sizes, (SIDE, SIDE)))


def train_and_test(cfg: Config, metric: str) -> None:
    """Train, validate, save and test; the block's weights stay outside."""
    runner = build_runner(finish_config(cfg, Namespace(no_pin_memory=True, cfg_options=None)))
    train(runner)
    (file,) = Path(runner.work_dir).glob('*_[12].pth')
    state = torch.load(file, weights_only=True)['state_dict']
    assert [k for k in state if '.block.' in k] == ['backbone.llm_neck.block.llm_source']
    assert metric in runner.test()
