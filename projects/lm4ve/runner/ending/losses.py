"""Find losses and weights that are NaN or infinite.

MMEngine trains on with weights that are NaN and overwrites good checkpoints with them.

Losses are kept where they are, and those of many iterations are read at once. A GPU is
waited for in every iteration all the same: MMEngine's ``RuntimeInfoHook`` reads the losses
for the log, and its optimizer wrapper the norm of the gradients that it clips.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object


class StepLosses(NamedTuple):
    """The losses of one iteration, not read yet.

    Attributes:
        iteration (int): Its number, from 1.
        epoch (int): The number of its epoch, from 1.
        names (tuple[str, ...]): Of the losses.
        values (Tensor, optional): Of shape [len(names)]; None without losses.
    """

    iteration: int
    epoch: int
    names: tuple[str, ...]
    values: torch.Tensor | None


def losses_of(outputs: Any) -> dict[str, torch.Tensor]:
    """Return the results of a training step with 'loss' in their names, as tensors."""
    losses = {}
    for name, value in (outputs or {}).items():
        if 'loss' in name:
            losses[name] = torch.as_tensor(value)
    return losses


def stack_scalars(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Return the means of tensors in one, without waiting for the device.

    The result is a copy, so that a compiled model may write over its losses in the next
    iteration.

    Args:
        tensors (Sequence[Tensor]): Usually scalars.

    Returns:
        Tensor | None: Of shape [len(tensors)], on the device of the first one; None if
        there are none.
    """
    if not tensors:
        return None
    scalars = []
    for tensor in tensors:
        value = tensor.detach()
        # A mean of 16 bits could be infinite although no value is.
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        if value.dim() > 0:
            value = value.mean()
        scalars.append(value.to(tensors[0].device))
    return torch.stack(scalars)


def find_bad(steps: Sequence[StepLosses]) -> list[dict[str, float]]:
    """Return the losses of each iteration that are not finite, by name.

    The device is waited for once.
    """
    values = [step.values for step in steps if step.values is not None]
    if not values:
        return [{} for _ in steps]
    numbers = iter(torch.cat(values).tolist())
    found = []
    for step in steps:
        bad = {}
        for name in step.names:
            number = next(numbers)
            if not math.isfinite(number):
                bad[name] = number
        found.append(bad)
    return found


def find_bad_anywhere(steps: Sequence[StepLosses]) -> list[dict[str, float]]:
    """Return the losses of each iteration that are not finite in any process.

    Those of other processes than the main one have their rank in their names.
    """
    by_rank = all_gather_object(find_bad(steps))
    found: list[dict[str, float]] = [{} for _ in steps]
    for rank, of_rank in enumerate(by_rank):
        for merged, bad in zip(found, of_rank, strict=True):
            for name, value in bad.items():
                if rank > 0:
                    name = f'{name} (rank {rank})'
                merged[name] = value
    return found


def find_bad_weights(model: torch.nn.Module) -> list[str]:
    """Return the names of trained weights that are not finite.

    The device is waited for once.
    """
    names = []
    checks = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            names.append(name)
            checks.append(torch.isfinite(parameter).all())
    flags = stack_scalars(checks)
    if flags is None:
        return []
    bad = []
    for name, is_finite in zip(names, flags.tolist(), strict=True):
        if not is_finite:
            bad.append(name)
    return bad
