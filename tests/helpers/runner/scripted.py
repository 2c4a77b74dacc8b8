"""A model whose losses are written down, and a runner that trains it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from tests.helpers.runner.toy import Score, make_runner


class Scripted(BaseModel):
    """Its losses are the next ones of a list, whatever the input.

    Args:
        losses (Sequence[float]): Of all iterations.
        poisons (bool): The gradient of a loss that is not finite is NaN; else all are 1.
        fails (bool): A weight that is NaN makes it raise, as a solver may do.
    """

    def __init__(
        self, losses: Sequence[float], poisons: bool = False, fails: bool = False
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.losses = list(losses)
        self.poisons = poisons
        self.fails = fails
        # Saved, so that a resumed training goes on in the list.
        self.register_buffer('done', torch.zeros((), dtype=torch.long))

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'loss') -> Any:
        if mode != 'loss':
            return [1.0]
        if self.fails and not torch.isfinite(self.weight):
            raise ValueError('matrix contains invalid numeric entries')
        loss = self.losses[int(self.done)]
        self.done += 1
        if self.poisons:
            return dict(loss_scripted=self.weight * loss)
        return dict(loss_scripted=self.weight - self.weight.detach() + loss)


class Nothing(Dataset):
    """Inputs that do not matter."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return dict(inputs=torch.ones(1))


def scripted_runner(
    folder: Path, model: Scripted, epochs: int = 1, save: int = 1, **options: Any
) -> Runner:
    """Build a runner that trains through a model's list of losses.

    Args:
        folder (Path): Of its checkpoints.
        model (Scripted): With as many losses as there are iterations.
        epochs (int): How many; they are equally long.
        save (int): How many iterations are between two checkpoints.
        **options: ``hook``, those of the hook that is tested; others are the runner's.
    """
    length, rest = divmod(len(model.losses), epochs)
    assert rest == 0
    hooks = [dict(type='lm4ve.EndingHook', **options.pop('hook', {}))]
    hooks += options.pop('custom_hooks', [])
    checkpoint = dict(type='lm4ve.AtomicCheckpointHook', by_epoch=False, interval=save)
    options.setdefault('train_cfg', dict(type='lm4ve.EpochLoop', max_epochs=epochs))
    return make_runner(
        folder,
        model,
        Nothing(length),
        1,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.125)),
        default_hooks=dict(checkpoint=checkpoint, logger=None),
        custom_hooks=hooks,
        **options,
    )


def validation(score: float = 1.0) -> dict[str, Any]:
    """Return a runner's fields for a validation after each epoch."""
    loader = dict(
        dataset=Nothing(1),
        batch_size=1,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    return dict(
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=[Score([score] * 100)],
    )
