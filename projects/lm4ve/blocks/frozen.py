"""Keep a module's tensors out of reach of everything that would change or store them.

Host models re-initialize every ``Linear`` after construction, EMA deep-copies
the model, checkpoints save its ``state_dict()`` and optimizers take its
``parameters()``. ``requires_grad=False`` stops only the optimizers. A
:class:`Frozen` module hides what it wraps from all four, yet computes with it,
moves with ``.to()`` and can be found (and hooked) by its name.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """Wraps a module whose tensors are read-only, unsaved and shared by copies.

    Args:
        module (nn.Module): Any module without persistent state of its own
            besides its parameters. It is set to eval mode for good.
    """

    wrapped: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # An assignment would register it as a submodule, which is what it must not be.
        self.__dict__['wrapped'] = module.requires_grad_(False).eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapped(*args, **kwargs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value of each hidden tensor."""
        yield from self.wrapped.named_parameters()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.wrapped._apply(fn)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # The values are shared, the modules are not: casting or moving a copy
        # must leave the original as it is.
        for tensor in self.wrapped.parameters():
            memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=False)
        copy = memo[id(self)] = type(self)(deepcopy(self.wrapped, memo))
        return copy

    def extra_repr(self) -> str:
        return repr(self.wrapped)


def unwrap(part: nn.Module) -> nn.Module:
    """Return what a :class:`Frozen` hides, and any other module as it is."""
    return part.wrapped if isinstance(part, Frozen) else part


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every frozen tensor below a module, by its qualified name."""
    return {
        f'{path}.{name}' if path else name: tensor
        for path, m in module.named_modules()
        if isinstance(m, Frozen)
        for name, tensor in m.tensors()
    }


class HeldValues:
    """Remembers what frozen tensors added up to when they were read, for each dtype.

    A cast to fewer bits and back, an allocation without a copy or a write through
    ``.data`` leaves no trace but the values. Copies of a module share the values, so they
    share this too. A pass over 800 MB takes about 0.1 s on two CPU cores.
    """

    def __init__(self) -> None:
        self._sums: dict[torch.dtype, tuple[int, ...]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def reset(self, module: nn.Module) -> None:
        """Take the values that the module has now for the right ones."""
        self._sums.clear()
        self.changed(module)

    def changed(self, module: nn.Module) -> list[str]:
        """Return the names of tensors below a module that are not as they were read.

        The first look at a dtype is the reference for that dtype.
        """
        tensors = frozen_tensors(module)
        if not tensors or any(t.is_meta for t in tensors.values()):
            return []
        sums = tuple(int(sums_of_bits(t).sum()) for t in tensors.values())
        expected = self._sums.setdefault(next(iter(tensors.values())).dtype, sums)
        return [n for n, a, b in zip(tensors, sums, expected, strict=True) if a != b]


def bits_of(tensor: Tensor) -> Tensor:
    """Return a tensor's values as 64-bit integers, ``[M]``, without a copy if possible.

    Floats that are NaN would differ from themselves, and cost more to compare.
    """
    tensor = tensor.detach()
    if not tensor.is_contiguous():  # a transposed matrix is one without a copy
        tensor = tensor.t().contiguous() if tensor.dim() == 2 else tensor.contiguous()
    data = tensor.view(-1).view(torch.uint8)
    if data.storage_offset() % 8 or len(data) % 8:
        data = torch.cat([data, data.new_zeros(-len(data) % 8)])
    return data.view(torch.int64)


def sums_of_bits(tensor: Tensor, words: int = 64) -> Tensor:
    """Add up :func:`bits_of` a tensor in runs; sums overflow.

    Any change of values shows, unless it only moves them within a run of ``words`` integers,
    or changes several of a run so that they cancel out.
    """
    bits = bits_of(tensor)
    whole = len(bits) // words * words
    return torch.cat([bits[:whole].view(-1, words).sum(dim=1), bits[whole:]])


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count a model's parameters.

    Args:
        module (nn.Module): Any model, with or without frozen blocks.

    Returns:
        tuple[int, int]: Trainable and frozen parameters. The second counts
        both :class:`Frozen` tensors and parameters without gradient.
    """
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    plain = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    hidden = sum(t.numel() for t in frozen_tensors(module).values())
    return trainable, plain + hidden
