"""Keep a module's tensors out of reach of everything that would change or store them.

Host models re-initialize every ``Linear`` after construction, EMA deep-copies
the model, checkpoints save its ``state_dict()`` and optimizers take its
``parameters()``. ``requires_grad=False`` stops only the optimizers. A
:class:`Frozen` module hides what it wraps from all four, yet computes with it,
moves with ``.to()`` and can be found (and hooked) by its name.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """Wraps a module whose tensors do not train and are not saved, and whose values copies share.

    Whoever changes a value must give the tensor new data, as casts and loading do.
    Written in place it would change in all copies.

    Args:
        module (nn.Module): Any module without persistent state of its own
            besides its parameters. It is set to eval mode for good.
    """

    wrapped: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Set past nn.Module, which would register it as a submodule: its tensors would
        # be saved, moved and trained like those of any other.
        self.__dict__['wrapped'] = module.requires_grad_(False).eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapped(*args, **kwargs)

    @property
    def in_proj_weight(self) -> Tensor | None:
        """A tensor, for its device. ``peft`` looks for it under this name too.

        ``weight`` would be found, and overwritten, by initializers.
        """
        return next(self.wrapped.parameters(), None)

    def follow(self, device: torch.device) -> None:
        """Replace the wrapped module by a copy on a device, if its values are elsewhere.

        For FSDP and DataParallel, which move only registered parameters. A replica of
        DataParallel shares the wrapped module with its original, which must stay in
        place.
        """
        if any(t.device != device for t in self.wrapped.parameters()):
            self.__dict__['wrapped'] = deepcopy(self).to(device).wrapped

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply what moves or casts a model to the wrapped module too.

        torch calls it for ``.to()``, ``.cuda()`` and so on, and does not see that
        module.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.wrapped._apply(fn)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the modules, which share their values with the original.

        Casting or moving a copy thus leaves the original as it is, and a copy costs no
        memory.
        """
        for tensor in self.wrapped.parameters():
            memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=False)
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        # __dict__ has the wrapped module and the hooks; deepcopy takes the parameters
        # from the memo.
        copy.__dict__.update(deepcopy(self.__dict__, memo))
        return copy

    def extra_repr(self) -> str:
        return repr(self.wrapped)


def module_of(**tensors: Tensor) -> nn.Module:
    """Build a module that holds tensors as parameters, so that they can be frozen."""
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_parameter(name, nn.Parameter(tensor.detach()))
    return module


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Build a linear layer from a weight ``[O, I]`` and a bias ``[O]``, without a copy."""
    rows, columns = weight.shape
    linear = nn.Linear(columns, rows, bias=bias is not None, device='meta')
    linear.weight = nn.Parameter(weight.detach())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach())
    return linear


def unwrap(part: nn.Module) -> Any:
    """Return what a :class:`Frozen` hides, and any other module as it is."""
    if isinstance(part, Frozen):
        return part.wrapped
    return part


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every frozen tensor below a module, by its qualified name."""
    tensors: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        if not isinstance(part, Frozen):
            continue
        prefix = f'{path}.' if path else ''
        for name, tensor in part.wrapped.named_parameters():
            tensors[prefix + name] = tensor
    return tensors


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count a model's parameters.

    Args:
        module (nn.Module): Any model, with or without frozen blocks.

    Returns:
        tuple[int, int]: Trainable and frozen parameters. The second counts
        both :class:`Frozen` tensors and parameters without gradient.
    """
    trainable = 0
    frozen = 0
    for parameter in module.parameters():
        if parameter.requires_grad:
            trainable += parameter.numel()
        else:
            frozen += parameter.numel()
    for tensor in frozen_tensors(module).values():
        frozen += tensor.numel()
    return trainable, frozen
