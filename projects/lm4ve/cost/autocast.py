"""Autocast as it runs on a GPU, for tensors on the CPU.

Models are counted on fake tensors of the CPU, but torch's autocast for CPUs leaves some
functions in 16 bits that its autocast for GPUs runs in fp32 (lists:
https://docs.pytorch.org/docs/stable/amp.html). They matter for what a step keeps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor
from torch.library import Library
from torch.utils._pytree import tree_map

#: Operators that a GPU's autocast runs in fp32 and a CPU's in the dtype of their input.
IN_FULL_PRECISION = (
    'cumsum',
    'exp',
    'group_norm',
    'layer_norm',
    'log',
    'log_softmax.int',
    'norm.Scalar',
    'norm.ScalarOpt_dim',
    'pow.Tensor_Scalar',
    'reciprocal',
    'rsqrt',
    'softmax.int',
    'softplus',
    'sum',
    'sum.dim_IntList',
)


#: Wrapper of an optimizer -> the dtype of its autocast where its config names none.
DEFAULT_DTYPES = {'AmpOptimWrapper': 'float16', 'AutocastOptimWrapper': 'bfloat16'}


def amp_dtype(cfg: Config) -> torch.dtype | None:
    """Return the dtype in which a config's training runs autocast; None: it does not."""
    wrapper = cfg.get('optim_wrapper') or {}
    kind = str(wrapper.get('type')).rpartition('.')[2]
    if kind not in DEFAULT_DTYPES:
        return None
    dtype: torch.dtype = getattr(torch, wrapper.get('dtype') or DEFAULT_DTYPES[kind])
    return dtype


@contextmanager
def autocast_as_on_gpu(dtype: torch.dtype | None) -> Iterator[None]:
    """Run operators on tensors of the CPU in the dtypes of a GPU's autocast.

    Args:
        dtype (torch.dtype, optional): Of products. None: no autocast.
    """
    if dtype is None:
        yield
        return
    library = Library('aten', 'IMPL')
    for name in IN_FULL_PRECISION:
        packet, _, overload = name.partition('.')
        operator = getattr(getattr(torch.ops.aten, packet), overload or 'default')
        library.impl(name, partial(_run_in_fp32, operator), 'AutocastCPU')
    try:
        with torch.autocast('cpu', dtype=dtype):
            yield
    finally:
        library._destroy()


def _run_in_fp32(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator on its arguments in fp32, without autocast."""
    with torch.autocast('cpu', enabled=False):
        return operator(*tree_map(_in_fp32, args), **tree_map(_in_fp32, kwargs))


def _in_fp32(value: Any) -> Any:
    """Return a 16-bit tensor in fp32, and anything else as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value
