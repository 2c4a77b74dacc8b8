"""A fingerprint of frozen weights that does not depend on how they were stored.

The same weights come as float16 and float32 files, in Hugging Face's and in
Meta's row order. They are hashed in ``transformers``' names and rows, each tensor
in the smallest type that holds all its values exactly.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_CHUNK = 1 << 20  # elements; conversions never need more memory than this
_THREADS = 2


class Fingerprint:
    """The SHA-256 of named tensors, computed in threads while the next ones are read.

    Used as a context manager: tensors are added within it and must not change before its
    end, where :attr:`digest` is set.

    Attributes:
        digest (str): 64 hexadecimal digits.
    """

    def __init__(self) -> None:
        self.digest = ''
        self._total = hashlib.sha256()
        self._pool = ThreadPoolExecutor(_THREADS)
        self._pending: deque[Future[bytes]] = deque()

    def add(self, name: str, weight: Tensor) -> None:
        """Add a tensor.

        Args:
            name (str): Its name.
            weight (Tensor): Its values. A ``FakeTensor`` has none: only its name and
                shape are hashed.
        """
        # Few at a time: what waits here is held in memory.
        if len(self._pending) == _THREADS:
            self._total.update(self._pending.popleft().result())
        self._pending.append(self._pool.submit(_hash, name, weight.detach()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: object, *error: object) -> None:
        """Wait for the threads and set the digest, unless an error ends the context."""
        self._pool.shutdown()
        if error_type is not None:
            return
        for tensor_hash in self._pending:
            self._total.update(tensor_hash.result())
        self._pending.clear()
        self.digest = self._total.hexdigest()


def fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Compute the SHA-256 of named tensors, 64 hexadecimal digits.

    Args:
        weights (Iterable): See :meth:`Fingerprint.add`.
    """
    with Fingerprint() as result:
        for name, weight in weights:
            result.add(name, weight)
    return result.digest


def _hash(name: str, weight: Tensor) -> bytes:
    """Return the hash of a tensor's name, shape, smallest exact type and values.

    A ``FakeTensor`` has no values: its name and shape are returned.
    """
    if isinstance(weight, FakeTensor):
        return f'{name}{list(weight.shape)}'.encode()
    dtype = smallest_exact_dtype(weight)
    sha = hashlib.sha256(f'{name}{list(weight.shape)}{dtype}'.encode())
    for chunk in weight.reshape(-1).split(_CHUNK):
        # numpy has no bfloat16, and the bytes are what counts.
        sha.update(chunk.to(dtype).view(torch.uint8).numpy().data)
    return sha.digest()


def smallest_exact_dtype(weight: Tensor) -> torch.dtype:
    """Return the first of float16, bfloat16 and float32 that holds every value."""
    for dtype in (torch.float16, torch.bfloat16):
        if weight.dtype == dtype or _holds(dtype, weight):
            return dtype
    return torch.float32


def _holds(dtype: torch.dtype, weight: Tensor) -> bool:
    """Return whether a type holds every value of a tensor exactly."""
    for chunk in weight.reshape(-1).split(_CHUNK):
        if not torch.equal(chunk.to(dtype).to(chunk.dtype), chunk):
            return False
    return True
