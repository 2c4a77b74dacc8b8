"""A training that draws random numbers wherever one can, and may be killed."""

import os
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from torch import nn

from lm4ve.necks import LLMBlockNeck
from tests.helpers.models import BLOCK
from tests.helpers.runner.toy import CHECKPOINT

#: Of an epoch.
STEPS = 5
EPOCHS = 3
#: The indices of the samples that were read, in order.
READ: list[int] = []


@DATASETS.register_module()
class Augmented(torch.utils.data.Dataset):
    """Every sample draws from all three generators that augmentations use."""

    metainfo = dict(classes=('a',))

    def __len__(self):
        return 4 * STEPS - 1

    def __getitem__(self, i):
        READ.append(i)
        noise = random.random() + np.random.rand() + torch.rand(())
        return dict(inputs=torch.full((4,), i / 20.0) + noise)


@MODELS.register_module()
class Dropping(BaseModel):
    """A model whose steps draw random numbers, and keep running statistics."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.neck = LLMBlockNeck(
            6, dict(BLOCK, trainable='lora', lora=dict(r=2, dropout=0.5))
        )

    def forward(self, inputs, mode='tensor'):
        features = self.net(torch.stack(list(inputs)))
        out = self.neck(features[:, None]) * np.random.rand()
        if mode == 'loss':
            return dict(loss=(out - random.random()).square().mean())
        return out


class Killed(Exception):
    """Stands for the end of the process."""


@HOOKS.register_module()
class KillHook(Hook):
    """Ends training after a step, when everything else of that step is done."""

    priority = 'LOWEST'

    def __init__(self, after):
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after:
            raise Killed


def config(
    work_dir: Path, workers=0, loop=None, kill=None, interval=2, **changes
) -> Config:
    hooks = changes.pop('hooks', [dict(type='EMAHook', momentum=0.1)])
    sampler = dict(type=changes.pop('sampler', 'DefaultSampler'), shuffle=True)
    loader = dict(dataset=dict(type='Augmented'), batch_size=4, sampler=sampler)
    warm = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=7)
    checkpoint = dict(CHECKPOINT, interval=interval)
    cfg = dict(
        model=dict(type='Dropping'),
        work_dir=str(work_dir),
        train_dataloader=dict(
            loader, num_workers=workers, persistent_workers=workers > 0
        ),
        train_cfg=loop or dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        param_scheduler=[
            warm,
            dict(type='CosineAnnealingLR', T_max=EPOCHS, by_epoch=True),
        ],
        default_hooks=dict(
            checkpoint=checkpoint, plain=dict(type='lm4ve.PlainCheckpointHook')
        ),
        custom_hooks=[*hooks, dict(type='KillHook', after=kill)],
        randomness=dict(seed=3),
        log_level='ERROR',
        experiment_name=f'resume-{os.urandom(6).hex()}',
    )
    return Config({**cfg, **changes})
