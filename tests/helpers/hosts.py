"""A host's config made small: a few pictures, thin models, two iterations."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from lm4ve.runner.command_line import build_runner
from tests.helpers import shrink
from tests.helpers.config_runs import WeightsOfFiles, train
from tests.helpers.vqa.files import write_image, write_json

SIDE = 64
#: A host's folder of configs -> its scope.
SCOPES = dict(detection='mmdet', segmentation='mmseg')
write_picture = partial(write_image, size=(SIDE, SIDE))


def write_coco(folder: Path, split: str, count: int, classes: tuple[str, ...]) -> None:
    """COCO's layout: pictures, and one file with a box of one of two classes for each."""
    images = []
    boxes = []
    for i in range(count):
        name = f'{i:012d}.jpg'
        write_picture(folder / f'{split}2017' / name, i)
        images.append(dict(id=i, file_name=name, width=SIDE, height=SIDE))
        box = dict(
            id=i,
            image_id=i,
            category_id=1 + i % 2,
            bbox=[8, 8, 32, 24],
            area=768,
            iscrowd=0,
            segmentation=[],
        )
        boxes.append(box)
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    content = dict(images=images, annotations=boxes, categories=categories)
    write_json(folder / f'annotations/instances_{split}2017.json', content)


class HostShrinker(shrink.Shrinker):
    """Shrinks the configs of a host, whose pictures it writes where they name them.

    Args:
        folder (Path): See :class:`tests.helpers.shrink.Shrinker`.
        host (str): Its folder of configs.
        model (callable): Shrinks a model without its neck; returns the tokens' width.
        data (callable): Writes the files of a data set, given its config.
        steps (dict): Lengths of the training.
    """

    def __init__(
        self,
        folder: Path,
        host: str,
        model: Callable[['HostShrinker', ConfigDict], int],
        data: Callable[['HostShrinker', ConfigDict], None],
        **steps: int,
    ) -> None:
        super().__init__(folder)
        self.host = host
        self.model = partial(model, self)
        self.write_data = partial(data, self)
        self.steps = steps

    def load(self, name: str, work_dir: Path) -> Config:
        return self.load_text(f"_base_ = 'lm4ve::{self.host}/{name}'", work_dir)

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 2 if split == 'train' else 1
        self.write_data(loader.dataset)
        for transform in loader.dataset.pipeline:
            for field in ('scale', 'crop_size'):
                if field in transform:
                    transform[field] = (SIDE, SIDE)

    def _schedule(self, cfg: Config, epochs: int) -> None:
        cfg.train_cfg.update(self.steps)
        cfg.default_hooks.checkpoint.interval = self.steps['val_interval']
        for schedule in cfg.param_scheduler:
            if schedule.get('begin', 0) > self.steps['val_interval']:
                schedule.begin = 0  # or training would end before it begins

    def pretrained(self, address: str, backbone: ConfigDict) -> None:
        """Answer the address of a backbone's weights with random ones."""

        def write(path: Path) -> None:
            bare = ConfigDict(backbone, init_cfg=None, _scope_=SCOPES[self.host])
            if 'pretrained' in bare:
                bare.pretrained = None
            state = MODELS.build(bare).state_dict()
            for name, tensor in state.items():
                state[name] = random_like(tensor)
            torch.save(dict(state_dict=state), path)

        self.answer(address, write)


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return numbers that no initialization gives; counts stay as they are."""
    if not tensor.is_floating_point():
        return tensor
    return torch.rand_like(tensor) / 8


def train_and_test(shrinker: HostShrinker, cfg: Config, metric: str) -> None:
    """Train, validate, save and test; the block's weights stay outside."""
    runner = build_runner(cfg)
    runner.register_hook(WeightsOfFiles(shrinker.weights))
    train(runner)
    (file,) = Path(runner.work_dir).glob('*_[12].pth')
    state = torch.load(file, weights_only=True)['state_dict']
    of_block = [name for name in state if '.block.' in name]
    assert of_block == ['backbone.llm_neck.block._extra_state']
    assert metric in runner.test()
