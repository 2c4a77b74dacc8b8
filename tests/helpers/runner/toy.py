"""A Runner of one epoch over a list, which saves after every step, and a metric for it."""

import os
from collections.abc import Iterable
from pathlib import Path

from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

CHECKPOINT = dict(type='lm4ve.AtomicCheckpointHook', by_epoch=False, interval=1)


class Score(BaseMetric):
    """Gives each evaluation the next one of some values."""

    def __init__(self, values: Iterable[float]) -> None:
        super().__init__()
        self.values = iter(values)

    def process(self, data_batch, data_samples) -> None:
        self.results += data_samples

    def compute_metrics(self, results) -> dict:
        return dict(score=next(self.values))


def make_runner(work_dir: Path, model, data, batch_size: int, **changes) -> Runner:
    """Build it; ``changes`` replace arguments of MMEngine's Runner, and hooks are added."""
    loader = dict(collate_fn=changes.pop('collate_fn', dict(type='pseudo_collate')))
    loader |= dict(sampler=dict(type='DefaultSampler', shuffle=True), dataset=data)
    fields = dict(
        train_dataloader=dict(loader, batch_size=batch_size),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=CHECKPOINT),
        randomness=dict(seed=0),
        log_level='ERROR',
        experiment_name=f'{work_dir.name}-{os.urandom(4).hex()}',
    )
    fields |= changes
    return fields.pop('runner', Runner)(model=model, work_dir=str(work_dir), **fields)
