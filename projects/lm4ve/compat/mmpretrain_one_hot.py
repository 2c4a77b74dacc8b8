"""Make one-hot labels for mmpretrain's losses without waiting for the device."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def convert_without_reading(losses: Any) -> None:
    """Replace ``convert_to_one_hot`` by one that reads no value of the labels.

    Slow in mmpretrain 1.2.0 (not reported upstream): it reads the largest label in each
    training step to compare it with the number of classes. A GPU is waited for, and
    torch.compile splits the graph. ``one_hot`` itself refuses labels that are too
    large: by an error on a CPU, by an assertion on a GPU. May go once mmpretrain leaves
    the comparison out.

    Args:
        losses (ModuleType): A module of mmpretrain that has imported the function.
    """
    losses.convert_to_one_hot = _convert_to_one_hot


def _convert_to_one_hot(targets: Tensor, classes: int) -> Tensor:
    """Return one-hot labels ``[N, classes]`` of labels ``[N, 1]``, as integers."""
    return F.one_hot(targets.long().squeeze(-1), num_classes=classes)
