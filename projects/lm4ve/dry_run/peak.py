"""Trains a few steps at the highest learning rate, to see whether the loss explodes.

A warm-up hides a rate that is far too high (100 in place of 1e-3) from the first steps.
So after them the last batch is trained on again and again at the highest rate. A rate
that is only a little too high does not show in so few steps.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.runner import Runner

from lm4ve.runner.ending.losses import losses_of
from lm4ve.runner.precision import optim_wrappers

#: Forward passes, with an update after each.
_PASSES = 4
#: A loss has exploded that is more than so many times the first one of the training, or
#: 1 if that is less: a trained model may begin with almost none.
_EXPLODED = 10.0


def groups_of(runner: Runner) -> Iterator[dict[str, Any]]:
    """Yield the groups of parameters of a runner's optimizers."""
    for wrapper in optim_wrappers(runner):
        yield from wrapper.optimizer.param_groups


def train_at(rates: Sequence[float], runner: Runner, batch: Any) -> list[float]:
    """Train a few steps on one batch; return the loss of each.

    Args:
        rates (Sequence[float]): The learning rate of each of :func:`groups_of`.
        runner (Runner): Its model is spoiled if the rates are too high.
        batch: From the training's dataloader.
    """
    for group, rate in zip(groups_of(runner), rates, strict=True):
        group['lr'] = rate
    runner.model.train()
    losses = []
    for _ in range(_PASSES):
        outputs = runner.model.train_step(
            copy.deepcopy(batch), optim_wrapper=runner.optim_wrapper
        )
        losses.append(_sum_of(losses_of(outputs)))
    return losses


def find_explosion(
    losses: Mapping[str, Sequence[float]], losses_at_peak: Sequence[float]
) -> str:
    """Return a sentence on a loss that explodes at the highest rate, or ''.

    Args:
        losses (Mapping[str, Sequence[float]]): By name, of the first steps.
        losses_at_peak (Sequence[float]): From :func:`train_at`.
    """
    first = _sum_of({name: values[0] for name, values in losses.items()})
    bound = _EXPLODED * max(abs(first), 1.0)
    for loss in losses_at_peak:
        if not math.isfinite(loss) or loss > bound:
            return (
                f'At the highest learning rate the loss goes from {first:.3g} to {loss:.3g} '
                f'within {_PASSES} steps. Fix: a lower optim_wrapper.optimizer.lr (--lr).'
            )
    return ''


def _sum_of(losses: Mapping[str, Any]) -> float:
    """Return the loss of a step: the one that MMEngine has summed, or the sum of all."""
    if 'loss' in losses:
        losses = {'loss': losses['loss']}
    return sum(float(torch.as_tensor(loss).detach().mean()) for loss in losses.values())
