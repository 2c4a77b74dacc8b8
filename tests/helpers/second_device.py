"""A second device without hardware: a CPU shows what a GPU would not accept or wait for.

A tensor on 'accel' holds a CPU tensor and computes with it. As on a GPU, an operation on
tensors of both devices raises. What a GPU would wait for is noted with the line of code
that asks for it: a value that is read (``.item()``, ``if tensor:``), a result whose size
depends on values (boolean indices, ``nonzero``), a copy from the device, and a copy to it
that blocks.

torch >= 2.12 lets Python define such a device. It stays defined as long as the process
lives, and libraries then find an accelerator, so :mod:`tests.helpers.device_runs` uses it
in processes of their own.

The draws of random numbers are the CPU's, so that a training has the same ones on both.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import (
    _setup_privateuseone_for_python_backend,
)

NAME = 'accel'
#: Operations whose result, or its size, the CPU needs before it goes on.
READS = {
    '_local_scalar_dense',
    '_unique2',
    'bincount',
    'equal',
    'is_nonzero',
    'masked_select',
    'nonzero',
    'unique_consecutive',
    'unique_dim',
}
#: Operations that take indices.
INDEXING = {
    '_index_put_impl_',
    '_unsafe_index',
    '_unsafe_index_put',
    'index',
    'index_put',
    'index_put_',
}
#: Operations that may take tensors of both devices.
COPIES = {'_copy_from', '_to_copy', 'copy_', 'set_'}
#: Operations that compute nothing on the device, beside views of a tensor.
NO_WORK = {
    '_reshape_alias',
    '_unsafe_view',
    'detach',
    'empty',
    'empty_like',
    'empty_strided',
    'lift_fresh',
    'new_empty',
    'new_empty_strided',
    'set_',
}
#: Operations that autocast runs in 16 bits.
LOWERED = (
    'addmm',
    'baddbmm',
    'bmm',
    'conv1d',
    'conv2d',
    'conv3d',
    'linear',
    'matmul',
    'mm',
    'scaled_dot_product_attention',
)
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
#: Packages whose lines are worth naming; the innermost one of them asked.
NAMED = (
    'llm4seg',
    'lm4ve',
    'mmaction',
    'mmcv',
    'mmdet',
    'mmengine',
    'mmpretrain',
    'mmseg',
    'timm',
    'transformers',
)


class _Backend:
    """The functions that torch and MMEngine expect of a module such as ``torch.cuda``."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def set_device(device: Any) -> None:
        pass

    @staticmethod
    def synchronize(device: Any = None) -> None:
        pass

    @staticmethod
    def empty_cache() -> None:
        pass

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    @staticmethod
    def get_rng_state(device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


class Waits:
    """Counts what the device would be waited for, and what it is asked to compute.

    Attributes:
        counts (Counter | None): (kind, file and line) -> how often; None: not counted.
        launches (int): How many operations the device was given. A GPU starts at least
            one program for each.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] | None = None
        self.launches = 0

    def note(self, kind: str) -> None:
        """Count one wait of the code that runs."""
        if self.counts is not None:
            self.counts[kind, asking_line()] += 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counter[tuple[str, str]]]:
        """Count inside this context; yields the counts."""
        before = self.counts
        self.counts = Counter()
        try:
            yield self.counts
        finally:
            self.counts = before


#: What runs in this process waits for the device here.
WAITS = Waits()


def asking_line() -> str:
    """Return the innermost line of a named package, as 'lm4ve/necks/neck.py:12'."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = named_file(frame)
        if file is not None:
            return f'{file}:{frame.f_lineno}'
        frame = frame.f_back
    return '?'


def named_file(frame: FrameType) -> str | None:
    """Return the file of a frame without what is before its package, if it is a named one.

    The frame's module says which package it belongs to. Its path does not: a clone may
    lie in a folder that is called as a package.
    """
    package = frame.f_globals.get('__package__') or ''
    if package.partition('.')[0] not in NAMED:
        return None
    folder = package.replace('.', '/')
    return f'{folder}/{Path(frame.f_code.co_filename).name}'


class AccelTensor(torch.Tensor):
    """A tensor on the second device.

    Attributes:
        raw (Tensor): On the CPU, with the same values, sizes and strides.
    """

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> Self:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    def tolist(self) -> Any:
        """Return the values; torch has no such method for subclasses."""
        WAITS.note('value read')
        return self.raw.tolist()

    def numpy(self, **options: Any) -> Any:
        """Refuse, as torch does for a tensor on a GPU."""
        raise TypeError(f'numpy() of a tensor on {NAME}. Fix: call .cpu() first.')

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """Copy the values; torch would copy a storage, which is not there."""
        if id(self) in memo:
            known: torch.Tensor = memo[id(self)]
            return known
        made: torch.Tensor = AccelTensor(self.raw.clone())
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        else:
            made.requires_grad_(self.requires_grad)
        memo[id(self)] = made
        return made

    def __repr__(self, **options: Any) -> str:
        return f'AccelTensor({self.raw!r})'

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """Inside this context, ``device='accel'`` makes tensors on the second device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation as the device would: note its waits, compute on the CPU."""
    operation = func._schema.name.removeprefix('aten::')
    if operation == 'is_pinned':
        return False
    if operation == '_pin_memory':
        return args[0]  # of the CPU's memory, all is as good
    tensors = [t for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, AccelTensor)]
    here = [t for t in tensors if not isinstance(t, AccelTensor)]
    goes_there = bool(there)
    asked = kwargs.get('device')
    if asked is not None:
        goes_there = torch.device(asked).type == NAME

    if operation in COPIES:
        note_copy(operation, args, kwargs, there, here, goes_there)
    elif there:
        check_devices(operation, args, here)
        note_reads(operation, args)

    is_work = operation not in NO_WORK and not func.is_view
    if goes_there and is_work:
        WAITS.launches += 1
    raw_args, raw_kwargs = tree_map(raw_of, (args, kwargs))
    if goes_there and asked is not None:
        raw_kwargs['device'] = torch.device('cpu')
    made = func(*raw_args, **raw_kwargs)
    if not goes_there:
        return made
    return tree_map(wrapper(there), made)


def note_copy(
    operation: str,
    args: Any,
    kwargs: dict[str, Any],
    there: list[AccelTensor],
    here: list[torch.Tensor],
    goes_there: bool,
) -> None:
    """Note a copy between the devices for which the CPU waits."""
    if operation == '_to_copy':
        to_device = goes_there and not there
        to_cpu = bool(there) and not goes_there
        waits = not kwargs.get('non_blocking', False)
    elif operation == 'copy_':
        target, source = args[0], args[1]
        to_device = is_there(target) and not is_there(source) and source.dim() > 0
        to_cpu = is_there(source) and not is_there(target)
        waits = not (len(args) > 2 and args[2])
    else:
        to_device = False
        to_cpu = False
        waits = False
    if to_device and waits:
        WAITS.note('blocking copy to the device')
    if to_cpu:
        WAITS.note('copy from the device')


def check_devices(operation: str, args: Any, here: list[torch.Tensor]) -> None:
    """Raise where tensors of both devices meet.

    A scalar may be on the CPU, and so may the indices of a tensor, which are copied.

    Raises:
        RuntimeError: They meet.
    """
    if all(t.dim() == 0 for t in here):
        return
    if operation in INDEXING and is_there(args[0]):
        WAITS.note('indices from the CPU')
        return
    raise RuntimeError(
        f'{operation}: expected all tensors on one device, found {NAME} and cpu, in '
        f'{asking_line()}'
    )


def note_reads(operation: str, args: Any) -> None:
    """Note an operation that returns values, or as many as the values say."""
    if operation in READS:
        WAITS.note('value read')
    if operation not in INDEXING:
        return
    indices = [t for t in args[1] if t is not None]
    if any(t.dtype in (torch.bool, torch.uint8) for t in indices):
        WAITS.note('boolean index')


def is_there(x: Any) -> bool:
    """Return whether a tensor is on the second device."""
    return isinstance(x, AccelTensor)


def raw_of(x: Any) -> Any:
    """Return the CPU tensor of a tensor on the device; anything else as it is."""
    if isinstance(x, AccelTensor):
        return x.raw
    return x


def wrapper(there: list[AccelTensor]) -> Callable[[Any], Any]:
    """Return a function that puts results on the device.

    An operation in place returns the tensor that it was given, so that one is found
    again.
    """
    known = {id(t.raw): t for t in there}

    def wrap(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) in known:
            return known[id(x)]
        return AccelTensor(x)

    return wrap


# ------------------------------------------------------- operations below any mode
def _empty(
    size: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> AccelTensor:
    layout_of = memory_format or torch.contiguous_format
    return AccelTensor(torch.empty(size, dtype=dtype, memory_format=layout_of))


def _empty_strided(
    size: Any,
    stride: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> AccelTensor:
    return AccelTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    if is_there(source) and not is_there(target):
        WAITS.note('copy from the device')
    if is_there(target) and not is_there(source) and not non_blocking:
        WAITS.note('blocking copy to the device')
    raw_of(target).copy_(raw_of(source))
    return target


def _stay_on_cpu(storage: Any, location: str) -> Any:
    """Load a file's storage for 'accel' to the CPU.

    There are no storages on the device: who loads a state copies it to a model's
    parameters, or an optimizer copies it beside them.
    """
    if location.startswith(NAME):
        return storage
    return None


def lowered(operation: Any) -> Callable[..., Any]:
    """Return an operation that autocast runs in its 16 bits."""

    def cast(x: Any) -> Any:
        is_tensor = isinstance(x, torch.Tensor)
        if is_tensor and x.dtype in (torch.float32, torch.float16, torch.bfloat16):
            return x.to(torch.get_autocast_dtype(NAME))
        return x

    def run_lowered(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            return operation(*map(cast, args), **kwargs)

    return run_lowered


def define_autocast() -> None:
    """Let ``torch.autocast('accel')`` run products in 16 bits, as on a GPU."""
    others = torch.library.Library('_', 'IMPL')
    others.fallback(torch.library.fallthrough_kernel, 'AutocastPrivateUse1')
    library = torch.library.Library('aten', 'IMPL')
    for name in LOWERED:
        operation = getattr(torch.ops.aten, name)
        library.impl(name, lowered(operation), 'AutocastPrivateUse1')
    LIBRARIES.extend([others, library])


def define() -> None:
    """Define the device in this process, once."""
    if torch._C._get_privateuse1_backend_name() == NAME:
        return
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    # ``torch.tensor(x, device='accel')`` and others do not pass through a mode.
    library = torch.library.Library('aten', 'IMPL')
    library.impl('empty.memory_format', _empty, 'PrivateUse1')
    library.impl('empty_strided', _empty_strided, 'PrivateUse1')
    library.impl('_copy_from', _copy_from, 'PrivateUse1')
    LIBRARIES.append(library)
    define_autocast()
    # Below those of torch itself, the first of which that answers is taken.
    torch.serialization.register_package(5, lambda storage: None, _stay_on_cpu)


#: Kept, since an implementation ends with its library.
LIBRARIES: list[torch.library.Library] = []
