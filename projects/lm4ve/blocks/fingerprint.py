"""A fingerprint of frozen weights that does not depend on how they were stored.

The same weights come as float16 and float32 files, in Hugging Face's and in
Meta's row order. They are hashed in ``transformers``' names and rows, each tensor
in the smallest type that holds all its values exactly.
"""
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Iterator, Optional

import torch
from torch import Tensor

_CHUNK = 1 << 20  # elements; conversions never need more memory than this


class Fingerprint:
    """SHA-256 over named tensors, computed beside the reading of the next one."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: Optional[Future] = None

    def update(self, name: str, weight: Tensor) -> None:
        """Add a tensor; it must not change until the next call."""
        self._wait()
        self._pending = self._pool.submit(self._feed, name, weight.detach())

    def hexdigest(self) -> str:
        """Return the hash of all tensors so far."""
        self._wait()
        return self._sha.hexdigest()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def _feed(self, name: str, weight: Tensor) -> None:
        dtype = _smallest_exact(weight)
        self._sha.update(f'{name}{list(weight.shape)}{dtype}'.encode())
        for chunk in _chunks(weight):
            # numpy knows no bfloat16, and the bytes are what counts.
            self._sha.update(chunk.to(dtype).view(torch.uint8).numpy())


def _chunks(weight: Tensor) -> Iterator[Tensor]:
    yield from weight.contiguous().view(-1).split(_CHUNK)


def _smallest_exact(weight: Tensor) -> torch.dtype:
    """float16, bfloat16 or float32: the first that holds every value."""
    for dtype in (torch.float16, torch.bfloat16):
        if weight.dtype == dtype or all(
                torch.equal(c.to(dtype).to(c.dtype), c)
                for c in _chunks(weight)):
            return dtype
    return torch.float32
