"""What a training step computes and holds, read off the operations that it dispatches.

Multiply-accumulates are half of what the formulas of ``torch.utils.flop_counter`` say. Which
part of the model an operation of the backward pass belongs to is told by autograd: it has the
sequence number of the forward operation that it differentiates.
"""

import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lm4ve.necks import LLMBlockNeck

_aten = torch.ops.aten
#: Attention on CPUs, which torch has no formulas for: those of the other fused kernels.
ATTENTION: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q.shape, k.shape, v.shape
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape)
    ),
}
#: The parts of a step, in the order in which they are told.
PARTS = ('backbone', 'mappers', 'block', 'head', 'rest')
_HEADS = ('head', 'cls_head', 'decoder', 'pose_head')
_OUTSIDE = ('neck', 'data_preprocessor')
#: Bytes beyond which a result fits no cache, and gets fresh pages from the system on a CPU.
LARGE = 1 << 25
#: Operations that allocate or look, and move no numbers.
_FREE = ('empty', 'new_empty', 'detach', 'device', 'lift_fresh', 'set_')


class Kind(NamedTuple):
    """Operations that are added up: those of a part, in one direction, in one type."""

    part: str
    backward: bool
    dtype: torch.dtype


@dataclass
class Counts:
    """What was counted.

    Attributes:
        macs (Counter): Multiply-accumulates by :class:`Kind`.
        product_bytes (Counter): By :class:`Kind`, the bytes that matrix products and
            convolutions read and write.
        other_bytes (Counter): The same of all other operations.
        large_bytes (Counter): The same of those of them whose result is larger than
            :data:`LARGE`; they are not in ``other_bytes``.
        saved (Counter): Bytes that the forward pass keeps for the backward one, by dtype.
        peak (Counter): Bytes allocated at the step's peak, beside parameters, by dtype.
    """

    macs: Counter = field(default_factory=Counter)
    product_bytes: Counter = field(default_factory=Counter)
    other_bytes: Counter = field(default_factory=Counter)
    large_bytes: Counter = field(default_factory=Counter)
    saved: Counter = field(default_factory=Counter)
    peak: Counter = field(default_factory=Counter)

    def total_macs(self, part: str | None = None, backward: bool | None = None) -> int:
        """Add up the multiply-accumulates of a part, of a direction, or of all."""
        return sum(
            n
            for kind, n in self.macs.items()
            if part in (None, kind.part) and backward in (None, kind.backward)
        )


class StepCounter(TorchDispatchMode):
    """Counts the operations of a training step of one model within :meth:`counting`.

    Args:
        model (nn.Module): Its parts are told by the names of its children and by its
            :class:`LLMBlockNeck`. Where a mapper is folded into the block's projections
            (``low_rank``), the products of both count as the block's.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.counts = Counts()
        self._parts = ['rest']
        self._numbers: list[int] = []  # of autograd, rising, and the part at each
        self._part_at: list[str] = []
        self._live: Counter[torch.dtype] = Counter()
        self._storages: dict[int, Any] = {}
        self._model = model
        self._places = dict(_places(model))

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what happens inside: one forward and one backward pass."""
        hooks = []
        for module, part in self._places.items():
            hooks.append(module.register_forward_pre_hook(self._enter(part), prepend=True))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        known = {_storage(t) for t in tensors_of(self._model)}
        saved: set[int] = set()

        def keep(t: Tensor) -> Tensor:
            key = _storage(t)
            if key not in known and key not in saved:
                saved.add(key)
                self.counts.saved[t.dtype] += t.untyped_storage().nbytes()
            return t

        self._storages = dict.fromkeys(known)
        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), self:
                yield self.counts
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet.__name__ in _FREE:
            return out
        part, backward = self._whose()
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        for t in results:
            self._hold(t)
        if func.is_view or not results:
            return out
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        # The type of what is computed: masks and indices go in, too.
        kind = Kind(part, backward, results[0].dtype)
        moved = sum(t.numel() * t.element_size() for t in (*inputs, *results))
        if (macs := macs_of(packet, args, kwargs, out)) is None:
            large = max(t.nbytes for t in results) > LARGE
            (self.counts.large_bytes if large else self.counts.other_bytes)[kind] += moved
        else:
            self.counts.macs[kind] += macs
            self.counts.product_bytes[kind] += moved
        return out

    # ------------------------------------------------------------ whose it is
    def _enter(self, part: str) -> Any:
        def enter(*_: Any) -> None:
            self._parts.append(part)

        return enter

    def _leave(self, *_: Any) -> None:
        self._parts.pop()

    def _whose(self) -> tuple[str, bool]:
        """Return the part of the running operation, and whether it is of the backward pass."""
        node = torch._C._current_autograd_node()
        if node is None:
            number = torch.autograd._get_sequence_nr()
            if not self._numbers or number > self._numbers[-1]:
                self._numbers.append(number)
                self._part_at.append(self._parts[-1])
            return self._parts[-1], False
        if len(self._parts) > 1:  # computed again, inside of a module
            return self._parts[-1], True
        # An operation's node takes its number before it runs, so that the next one is seen.
        at = bisect_right(self._numbers, node._sequence_nr() + 1) - 1
        return (self._part_at[at] if at >= 0 else 'rest'), True

    # ------------------------------------------------------------------ memory
    def _hold(self, t: Tensor) -> None:
        """Count a new storage until it is let go."""
        storage = t.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size, dtype = storage.nbytes(), t.dtype

        def let_go(_: Any) -> None:
            self._storages.pop(key, None)
            self._live[dtype] -= size

        self._storages[key] = weakref.ref(storage, let_go)
        self._live[dtype] += size
        if self._live.total() > self.counts.peak.total():
            self.counts.peak = Counter(self._live)


def macs_of(packet: Any, args: Any, kwargs: Any, out: Any) -> int | None:
    """Count the multiply-accumulates of an operation; None if it is no product."""
    if packet in ATTENTION:
        return ATTENTION[packet](*args, **kwargs) // 2
    if packet not in flop_registry:
        return None
    return flop_registry[packet](*args, **kwargs, out_val=out) // 2


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, buffers and the frozen tensors of blocks."""
    from lm4ve.blocks import frozen_tensors

    yield from model.parameters()
    yield from model.buffers()
    yield from frozen_tensors(model).values()


def _storage(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield modules that begin a part."""
    for name, child in model.named_children():
        if name in _HEADS:
            yield child, 'head'
        elif name not in _OUTSIDE:
            yield child, 'backbone'
    for module in model.modules():
        if isinstance(module, LLMBlockNeck):
            yield module, 'block'
            yield module.mapper_in, 'mappers'
            yield module.mapper_out, 'mappers'
