"""A fingerprint of frozen weights that does not depend on how they were stored.

The same weights come as float16 and float32 files, in Hugging Face's and in
Meta's row order. They are hashed in ``transformers``' names and rows, each tensor
in the smallest type that holds all its values exactly.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_CHUNK = 1 << 20  # elements; conversions never need more memory than this


class Fingerprint:
    """SHA-256 over named tensors, computed while the next ones are read."""

    _THREADS = 2

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(self._THREADS)
        self._pending: list[Future[bytes]] = []
        self._total = hashlib.sha256()

    def update(self, name: str, weight: Tensor) -> None:
        """Add a tensor, which must not change from now on.

        One of torch's ``FakeTensorMode`` has no values, and counts by its name and shape.
        """
        if isinstance(weight, FakeTensor):
            self._total.update(f'{name}{list(weight.shape)}'.encode())
            return
        # Few at a time: what waits here is held in memory.
        if len(self._pending) == self._THREADS:
            self._total.update(self._pending.pop(0).result())
        self._pending.append(self._pool.submit(_digest, name, weight.detach()))

    def hexdigest(self) -> str:
        """Return the hash of all tensors so far, in the order they came in."""
        while self._pending:
            self._total.update(self._pending.pop(0).result())
        return self._total.hexdigest()


def _digest(name: str, weight: Tensor) -> bytes:
    dtype = smallest_exact_dtype(weight)
    sha = hashlib.sha256(f'{name}{list(weight.shape)}{dtype}'.encode())
    for chunk in _chunks(weight):
        # numpy has no bfloat16, and the bytes are what counts.
        sha.update(chunk.to(dtype).view(torch.uint8).numpy().data)
    return sha.digest()


def _chunks(weight: Tensor) -> Iterator[Tensor]:
    yield from weight.contiguous().view(-1).split(_CHUNK)


def smallest_exact_dtype(weight: Tensor) -> torch.dtype:
    """Return the first of float16, bfloat16 and float32 that holds every value."""
    for dtype in (torch.float16, torch.bfloat16):
        if weight.dtype == dtype or all(
            torch.equal(c.to(dtype).to(c.dtype), c) for c in _chunks(weight)
        ):
            return dtype
    return torch.float32
