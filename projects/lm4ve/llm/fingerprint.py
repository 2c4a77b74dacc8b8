"""A fingerprint of frozen weights that does not depend on how they were stored.

The same weights come as float16 and float32 files, in Hugging Face's and in
Meta's row order. They are hashed in ``transformers``' names and rows, each tensor
in the smallest type that holds all its values exactly.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_CHUNK = 1 << 20  # elements; conversions never need more memory than this
_THREADS = 2


def fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Compute the SHA-256 of named tensors while the next ones are read.

    Args:
        weights (Iterable): Names and tensors, which must not change until this returns.
            A ``FakeTensor`` has no values: only its name and shape are hashed.

    Returns:
        str: 64 hexadecimal digits.
    """
    total = hashlib.sha256()
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, weight in weights:
            # Few at a time: what waits here is held in memory.
            if len(pending) == _THREADS:
                total.update(pending.popleft().result())
            pending.append(pool.submit(_digest, name, weight.detach()))
        for digest in pending:
            total.update(digest.result())
    return total.hexdigest()


def _digest(name: str, weight: Tensor) -> bytes:
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
        if weight.dtype == dtype or all(
            torch.equal(c.to(dtype).to(c.dtype), c)
            for c in weight.reshape(-1).split(_CHUNK)
        ):
            return dtype
    return torch.float32
