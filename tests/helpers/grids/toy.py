"""A model that trains in a moment, with everything that a trial needs."""

import os
import time
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch.utils.data import Dataset

from lm4ve.registry import DATASETS, METRICS, MODELS

#: Environment variable: a file. Where it is, training hangs, after it has said so by
#: a file beside.
HANG = 'LM4VE_TEST_HANG'
#: Environment variable: if set, a model prints the GPUs that its process was started with.
TELL_GPUS = 'LM4VE_TEST_TELL_GPUS'


@DATASETS.register_module(force=True)
class ToyData(Dataset):
    """Points of a noisy line; the parts are different draws."""

    def __init__(self, part: str = 'train', noise: float = 0.1) -> None:
        rng = torch.Generator().manual_seed(['train', 'fit', 'val', 'test'].index(part))
        self.x = torch.randn(32, 1, generator=rng)
        self.y = 2 * self.x + noise * torch.randn(32, 1, generator=rng)
        self.metainfo = {}

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict:
        return dict(x=self.x[i], y=self.y[i])


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    """Two linear layers, the second one frozen if asked for."""

    def __init__(
        self, width: int = 2, frozen: bool = False, fail: bool = False
    ) -> None:
        super().__init__()
        if TELL_GPUS in os.environ:
            started_with = Path('/proc/self/environ').read_text().split('\0')
            print([name for name in started_with if name.startswith('CUDA_VISIBLE')])
        self.fail = fail
        self.first = torch.nn.Linear(1, width)
        self.second = torch.nn.Linear(width, 1).requires_grad_(not frozen)

    def forward(self, x, y, mode: str = 'tensor'):
        if self.fail:
            raise RuntimeError('the toy is broken')
        out = self.second(self.first(x))
        if mode == 'loss':
            hang = Path(os.environ.get(HANG, '/none'))
            if hang.exists():
                hang.with_suffix('.hanging').touch()
                time.sleep(600)
            return dict(loss=((out - y) ** 2).mean())
        return list(((out - y) ** 2).detach().flatten())


@METRICS.register_module(force=True)
class ToyMetric(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples) -> None:
        self.results += [float(s) for s in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(error=sum(results) / len(results), note='no number')


CONFIG = """
custom_imports = dict(imports=['lm4ve.openmmlab', 'tests.helpers.grids.toy'])
default_scope = 'lm4ve'
model = dict(type='ToyModel', width=2)
def _loader(part):
    return dict(
        batch_size=8, num_workers=0, collate_fn=dict(type='default_collate'),
        dataset=dict(type='ToyData', part=part),
        sampler=dict(type='DefaultSampler', shuffle=part == 'train'))
train_dataloader = _loader('train')
val_dataloader = test_dataloader = _loader('test')
del _loader
val_evaluator = test_evaluator = dict(type='ToyMetric')
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg, test_cfg = dict(), dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
param_scheduler = None
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=0)
"""

GRID = """
name = 'toy'
base = 'config.py'
metric = 'toy/error'
margin = 0.05
greater_is_better = False
seeds = 2
reference = 'two'
variants = {
    'one': dict(options={'model.width': 1}),
    'two': dict(),
}
"""
TUNE = """
tune = dict(
    fields=('optim_wrapper.optimizer.lr', ), values=(.01, .1), seeds=1,
    options={'train_dataloader.dataset.part': 'fit',
             'test_dataloader.dataset.part': 'val'})
"""


def write_grid(folder: Path, text: str = GRID) -> Path:
    """Write the configuration and a grid of it; return the grid's file."""
    (folder / 'config.py').write_text(CONFIG)
    (folder / 'grid.py').write_text(text)
    return folder / 'grid.py'
