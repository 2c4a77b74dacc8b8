"""Records the operators of a training step: products, bytes moved, and memory held.

A :class:`Recorder` sees each operator of torch while a model runs, on fake or on real
tensors. From what it records, :mod:`lm4ve.cost.estimate` estimates seconds.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
    shape_wrapper,
)

_aten = torch.ops.aten
#: Operators that torch does not count -> formulas for their floating-point operations,
#: from the shapes of their arguments: attention on CPUs, which costs as much as the
#: other fused kernels.
_CPU = _aten._scaled_dot_product_flash_attention_for_cpu
_CPU_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward
FORMULAS = {
    _CPU: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    _CPU_BACKWARD: lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v),
}
_ALL_FORMULAS = {
    **flop_registry,
    **{operator: shape_wrapper(formula) for operator, formula in FORMULAS.items()},
}
#: Operators that give another view of their input, or memory that nothing was written to.
_WITHOUT_WORK = {
    _aten._unsafe_view,
    _aten.detach,
    _aten.empty,
    _aten.empty_like,
    _aten.empty_strided,
    _aten.lift_fresh,
    _aten.new_empty,
    _aten.new_empty_strided,
}
#: Operators that read only those rows of their first tensor that they return.
_PICKING = {_aten.embedding, _aten.gather, _aten.index, _aten.index_select}


@dataclass(frozen=True)
class Operation:
    """An operator with the work of one call.

    Attributes:
        name (str): Torch's name of it, for example 'addmm'.
        phase (str): 'forward', 'backward' or 'update'.
        dtype (torch.dtype | None): Of its first tensor; None if it has none.
        macs (int): Multiply-accumulates of products of matrices, convolutions and
            attention; 0 for other operators.
        moved (int): Bytes that it reads and writes.
    """

    name: str
    phase: str
    dtype: torch.dtype | None
    macs: int
    moved: int


class Recorder(TorchDispatchMode):
    """Records the operators that run inside it, and the largest sum of memory they hold.

    Args:
        resident (Iterable[Tensor]): Tensors whose memory is not counted, such as the
            weights.

    Attributes:
        phase (str): The phase of the next operators; see :class:`Operation`.
        calls (Counter[Operation]): Operation -> how many times it ran.
        held (int): Bytes of tensors that operators returned and that still exist.
        peak (int): The largest ``held`` so far.
        casts (set[int]): :func:`storage_of` of the copies of resident tensors in other
            dtypes that exist; autocast makes them of weights.
    """

    def __init__(self, resident: Iterable[Tensor]) -> None:
        super().__init__()
        self.phase = 'forward'
        self.calls: Counter[Operation] = Counter()
        self.held = 0
        self.peak = 0
        self.casts: set[int] = set()
        self._resident = {storage_of(tensor) for tensor in resident}
        self._births: dict[int, int] = {}
        self._time = 0
        self._time_of_peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and record it.

        Args:
            func (OpOverload): The operator.
            types: The types of its tensors, which do not matter here.
            args, kwargs: Its arguments.
        """
        if kwargs is None:
            kwargs = {}
        out = func(*args, **kwargs)
        results = _tensors_in(out)
        self._time += 1
        if results and not _is_free(func):
            self.calls[self._describe(func, args, kwargs, out)] += 1
        for tensor in results:
            self._hold(tensor)
        if func.overloadpacket is _aten._to_copy and self.is_resident(args[0]):
            self.casts.add(storage_of(out))
        return out

    def is_resident(self, tensor: Tensor) -> bool:
        """Return whether a tensor's memory is that of a resident one."""
        return storage_of(tensor) in self._resident

    def held_at_peak(self, tensors: Iterable[Tensor]) -> int:
        """Return the bytes of tensors, still existing, that existed at the peak, too."""
        size = 0
        for tensor in tensors:
            birth = self._births.get(storage_of(tensor))
            if birth is not None and birth <= self._time_of_peak:
                size += tensor.untyped_storage().nbytes()
        return size

    def _describe(self, func: Any, args: Any, kwargs: Any, out: Any) -> Operation:
        """Return what an operator did in this call."""
        packet = func.overloadpacket
        read = _tensors_in((args, kwargs))
        written = _tensors_in(out)
        formula = _ALL_FORMULAS.get(packet)
        macs = 0
        if formula is not None:
            macs = formula(*args, **kwargs, out_val=out) // 2
        size_of_results = sum(_size(tensor) for tensor in written)
        if packet in _PICKING:
            moved = 2 * size_of_results
        else:
            moved = sum(_size(tensor) for tensor in read) + size_of_results
        first = next(iter([*read, *written]), None)
        return Operation(
            name=packet.__name__,
            phase=self.phase,
            dtype=None if first is None else first.dtype,
            macs=macs,
            moved=moved,
        )

    def _hold(self, tensor: Tensor) -> None:
        """Count a tensor's memory from now on until it is freed."""
        key = storage_of(tensor)
        if key in self._resident or key in self._births:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        self._births[key] = self._time
        self.held += size
        if self.held > self.peak:
            self.peak = self.held
            self._time_of_peak = self._time
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        """Stop counting memory that was freed."""
        del self._births[key]
        self.casts.discard(key)
        self.held -= size


def storage_of(tensor: Tensor) -> int:
    """Return a number that tensors share if and only if they share their memory."""
    return tensor.untyped_storage()._cdata


def _is_free(func: Any) -> bool:
    """Return whether an operator moves no data."""
    return func.is_view or func.overloadpacket in _WITHOUT_WORK


def _tensors_in(tree: Any) -> list[Tensor]:
    """List the tensors in arguments or results of an operator."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _size(tensor: Tensor) -> int:
    """Return the bytes of a tensor; what is expanded counts once."""
    numbers = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride != 0:
            numbers *= length
    return numbers * tensor.element_size()
