"""Train as people do who have MMEngine alone: ``python stock_training.py FOLDER``.

It writes ``FOLDER/<schedule>/epoch_2.pth`` for every kind of state that MMEngine's
schedules have, with an average of the weights, a best score of numpy's and metadata of
nested dicts and arrays. Nothing here imports lm4ve, whose repairs would reach MMEngine.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner

SCHEDULES = dict(
    OneCycleLR=dict(eta_max=0.1, total_steps=8, by_epoch=False),
    MultiStepLR=dict(milestones=[1, 2, 2]),
    CosineRestartLR=dict(periods=[1, 1], restart_weights=[1, 1], eta_min=0.0),
    ReduceOnPlateauLR=dict(monitor='toy/score', rule='greater'),
    PolyMomentum=dict(end=2),
)


@DATASETS.register_module()
class StockData(BaseDataset):
    """Eight vectors."""

    METAINFO = dict(classes=('a', 'b'), palette=np.arange(6).reshape(2, 3))

    def load_data_list(self) -> list:
        return [dict(inputs=torch.full((4,), i / 8)) for i in range(8)]


@MODELS.register_module()
class StockModel(BaseModel):
    """A linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 2)

    def forward(self, inputs, mode='tensor', **_):
        out = self.net(torch.stack(list(inputs)))
        return dict(loss=out.square().mean()) if mode == 'loss' else list(out)


@METRICS.register_module()
class StockMetric(BaseMetric):
    """A score of numpy's."""

    def process(self, data_batch, data_samples) -> None:
        self.results.append(1)

    def compute_metrics(self, results) -> dict:
        return dict(score=np.float32(0.5))


def config_of(folder: Path, schedule: str) -> Config:
    sampler = dict(type='DefaultSampler', shuffle=True)
    dataset = dict(
        type='StockData', metainfo=dict(source=dict(year=2026, sizes=[1, 2]))
    )
    loader = dict(dataset=dataset, batch_size=2, sampler=sampler)
    best = dict(type='CheckpointHook', save_best='toy/score', rule='greater')
    fields = dict(
        model=dict(type='StockModel'),
        work_dir=str(folder / schedule),
        train_dataloader=loader,
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=dict(type='StockMetric', prefix='toy'),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3, momentum=0.9)),
        param_scheduler=dict(SCHEDULES[schedule], type=schedule),
        default_hooks=dict(checkpoint=best),
        custom_hooks=[dict(type='EMAHook')],
        randomness=dict(seed=0),
        log_level='ERROR',
        experiment_name=schedule,
    )
    return Config(fields)


if __name__ == '__main__':
    for name in SCHEDULES:
        Runner.from_cfg(config_of(Path(sys.argv[1]), name)).train()
