"""The machine's own ceiling for a computation: its matrix products alone.

Every product that a function runs is recorded with its shapes, types and layouts,
then each is run by itself. What a function takes beyond their sum is norms,
activations, softmax, casts and memory traffic.
"""
from collections import Counter
from typing import Callable, Dict, Tuple

import torch
from common import Timer
from torch.utils._python_dispatch import TorchDispatchMode

Shape = Tuple[int, ...]
# Left and right factor, each with shape and strides; and the type.
Product = Tuple[Shape, Shape, Shape, Shape, torch.dtype]


class Recorder(TorchDispatchMode):
    """Counts the matrix products run within it, attention's as products too."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ('mm', 'bmm'):
            self._add(args[0], args[1])
        elif name in ('addmm', 'baddbmm'):
            self._add(args[1], args[2])
        elif name.startswith('_scaled_dot_product'):
            self._add_attention(name, args)
        return func(*args, **(kwargs or {}))

    def _add(self, a: torch.Tensor, b: torch.Tensor, times: int = 1) -> None:
        key = (tuple(a.shape), a.stride(), tuple(b.shape), b.stride(), a.dtype)
        self.products[key] += times

    def _add_attention(self, name: str, args: tuple) -> None:
        # Forward: scores and the weighted sum. Backward: two products of each
        # kind; that fused kernels compute the scores again is not counted.
        backward = 'backward' in name
        q, k, v = args[1:4] if backward else args[:3]
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        weights = torch.empty(
            (*q.shape[:2], k.shape[1]), dtype=q.dtype, device='meta')
        self._add(q, k.transpose(1, 2), 2 if backward else 1)
        self._add(weights, v, 2 if backward else 1)


def record(function: Callable[[], object]) -> Counter:
    """Run a function; return its products and how often each is run."""
    with Recorder() as recorder:
        function()
    return recorder.products


def count_gmac(products: Dict[Product, int]) -> float:
    """Multiply-accumulates of products, in 1e9."""
    total = 0
    for (a, _, b, _, _), times in products.items():
        macs = b[-1]
        for size in a:
            macs *= size
        total += macs * times
    return total / 1e9


def time_products(products: Dict[Product, int], device: str, timer: Timer,
                  known: Dict[Product, float]) -> float:
    """Seconds that the products take, each run by itself.

    Args:
        products (dict): Of :func:`record`.
        device (str): Where.
        timer (Timer): Its median counts.
        known (dict): Product to seconds; filled, so that paths share figures.
    """
    for key in products:
        if key not in known:
            a, a_stride, b, b_stride, dtype = key
            left = torch.empty_strided(a, a_stride, dtype=dtype, device=device)
            right = torch.empty_strided(b, b_stride, dtype=dtype, device=device)
            left.normal_(), right.normal_()
            known[key] = timer(lambda x=left, y=right: x @ y)['seconds']
    return sum(known[k] * n for k, n in products.items())
