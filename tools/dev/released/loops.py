"""What is stored of a released training loop, and is measured of ours in the tests."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from tools.dev.released.seeding import gradient_marks


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """Return the shape of each floating-point tensor of a model's state, by its name."""
    shapes = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            shapes[name] = list(tensor.shape)
    return shapes


def copy_tensors(model: nn.Module) -> dict[str, np.ndarray]:
    """Return a copy of each floating-point tensor of a model's state, by its name."""
    copies = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            copies[name] = tensor.detach().numpy().copy()
    return copies


def marks_of_changes(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return two numbers of how far a training has moved each tensor.

    Args:
        before (Mapping[str, np.ndarray]): Tensors by their names.
        after (Mapping[str, np.ndarray]): The same later; others are left out.

    Returns:
        np.ndarray: float64 ``[N, 2]``, in the order of the sorted names of ``before``.
    """
    changes = {name: after[name] - values for name, values in before.items()}
    marks = gradient_marks(changes)
    return np.stack([marks[name] for name in sorted(marks)])


def describe_groups(optimizer: Any, model: nn.Module) -> list[dict[str, Any]]:
    """Return peak rate, weight decay and the names of the parameters of each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        groups.append(
            dict(
                lr=group['initial_lr'],
                weight_decay=group['weight_decay'],
                names=[names[id(parameter)] for parameter in group['params']],
            )
        )
    return groups


def as_bytes(content: Any) -> np.ndarray:
    """Return what an ``.npz`` file holds of a content, which is written as JSON."""
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


def kept(function: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    """Return a function that appends each of its results to a list, too."""

    def call(*args: Any, **kwargs: Any) -> Any:
        results.append(function(*args, **kwargs))
        return results[-1]

    return call
