"""What ``test_running_statistics.py`` runs in each of two processes: RANK, a folder and hooks.

The processes train on different samples, so that their running statistics differ.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from lm4ve.runner.runner import build_runner
from lm4ve.runner.without_gpu import adapt_to_cpu
from lm4ve.text.vocabulary import VocabularyHead


@DATASETS.register_module()
class Ramp(Dataset):
    """Sample i is i, in three columns."""

    metainfo: dict[str, Any] = {}

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return dict(inputs=torch.full((3,), float(index)))


class Answers(VocabularyHead):
    """Chooses one of two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 3), nn.GELU(), nn.Identity(), nn.Linear(3, 2)
        )
        self.set_vocabulary(['yes', 'no'])

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


@MODELS.register_module()
class Normed(BaseModel):
    """A batch norm and a head with a vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.head = Answers()

    def forward(
        self, inputs: list[Tensor], data_samples: Any = None, mode: str = 'tensor'
    ) -> Any:
        features = self.norm(torch.stack(inputs))
        if mode == 'loss':
            return dict(loss=self.head(features).square().mean())
        return list(features.double())


@METRICS.register_module()
class Mean(BaseMetric):
    """The mean of all outputs of all processes."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [float(output.mean()) for output in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return dict(mean=sum(results) / len(results))


def config(folder: Path, loop: str = 'epochs', **changes: Any) -> Config:
    """Return a training with two validations, each with a checkpoint."""
    loader = dict(
        dataset=dict(type='Ramp'),
        batch_size=4,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    by_epoch = loop == 'epochs'
    length = dict(max_epochs=2) if by_epoch else dict(max_iters=4, val_interval=2)
    interval = 1 if by_epoch else 2
    checkpoint = dict(
        type='lm4ve.AtomicCheckpointHook', by_epoch=by_epoch, interval=interval
    )
    fields = dict(
        model=dict(type='Normed'),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=by_epoch, **length),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=dict(type='Mean'),
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=dict(type='Mean'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=checkpoint, logger=None),
        log_level='ERROR',
    )
    return Config(fields | changes)


def main() -> None:
    rank = int(sys.argv[1])
    folder = Path(sys.argv[2])
    loop, *hooks = sys.argv[3:]
    os.environ['LOCAL_RANK'] = str(rank)  # MMEngine reads it
    store = f'file://{folder / "store"}'
    dist.init_process_group('gloo', store, rank=rank, world_size=2)
    custom_hooks = [dict(type=hook) for hook in hooks]
    cfg = config(folder / 'work', loop, launcher='pytorch', custom_hooks=custom_hooks)
    adapt_to_cpu(cfg)
    runner = build_runner(cfg)
    runner.train()
    print(runner.message_hub.get_scalar('val/mean').current())
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
