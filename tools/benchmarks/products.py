"""The machine's own ceiling for a computation: its matrix products alone.

Every product that a function runs is recorded with its shapes, types and layouts,
then each is run by itself. What a function takes beyond their sum is norms,
activations, softmax, casts and memory traffic.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from math import prod

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Shape = tuple[int, ...]
# Left and right factor, each with shape and strides; and the type.
Product = tuple[Shape, Shape, Shape, Shape, torch.dtype]


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
        weights = torch.empty((*q.shape[:2], k.shape[1]), dtype=q.dtype, device='meta')
        self._add(q, k.transpose(1, 2), 2 if backward else 1)
        self._add(weights, v, 2 if backward else 1)


def record(function: Callable[[], object]) -> Counter:
    """Run a function; return its products and how often each is run."""
    with Recorder() as recorder:
        function()
    return recorder.products


def count_gmac(products: dict[Product, int]) -> float:
    """Count the multiply-accumulates of products, in 1e9."""
    return sum(prod(a) * b[-1] * times for (a, _, b, _, _), times in products.items()) / 1e9


def product_runs(products: Iterable[Product], device: str) -> dict[Product, Callable[[], object]]:
    """Return for each product a function that runs it by itself."""

    @cache
    def tensor(shape: Shape, stride: Shape, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(shape, stride, dtype=dtype, device=device).normal_()

    return {
        (a, a_stride, b, b_stride, dtype): partial(
            torch.matmul, tensor(a, a_stride, dtype), tensor(b, b_stride, dtype)
        )
        for a, a_stride, b, b_stride, dtype in products
    }


def ceilings(products: dict[Product, int], times: dict[Product, list[dict]]) -> list[dict]:
    """Return for each round the ``seconds`` that a function's products take.

    Args:
        products (dict): What :func:`record` returned.
        times (dict): For each product one row with ``seconds`` a round.
    """
    rounds = zip(*(times[key] for key in products), strict=True)
    counts = products.values()
    return [
        dict(seconds=sum(n * row['seconds'] for n, row in zip(counts, round_, strict=True)))
        for round_ in rounds
    ]
