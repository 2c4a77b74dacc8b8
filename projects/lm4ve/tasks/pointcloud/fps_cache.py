"""Farthest points of a cloud, computed once for all epochs and workers.

They take 80 ms of 2,048 points, all else of a sample 1 ms. The memory is anonymous and shared:
workers that are forked for a later epoch find what earlier ones have computed.
"""

import hashlib
import mmap

import numpy as np
import torch

from lm4ve.tasks.base.point_ops import farthest_point_sample

#: Bytes of one memory; pages that nobody writes to cost nothing.
MEMORY = 2**27
_SEAL = 8


class FPSCache:
    """A table of picks, a row a sample.

    A row begins with a hash of the cloud and the picks. It does not match where the cloud has
    changed, where two samples share a row, or where another process is writing; then the picks
    are computed again.

    Args:
        num (int): Points that are picked of a cloud.
        size (int): Bytes of the memory.
    """

    def __init__(self, num: int, size: int = MEMORY) -> None:
        self.num = num
        width = _SEAL + 4 * num
        memory = mmap.mmap(-1, size // width * width)
        self.rows = np.frombuffer(memory, np.uint8).reshape(-1, width)

    def picks(self, points: np.ndarray, sample_idx: int) -> np.ndarray:
        """Return the farthest points of a cloud float32 ``[N, 3]``, as int32 ``[num]``."""
        row = self.rows[sample_idx % len(self.rows)]
        kept = row.copy()
        picks = kept[_SEAL:].view(np.int32)
        if kept[:_SEAL].tobytes() != _seal(points, picks):
            picks = farthest_point_sample(torch.from_numpy(points)[None], self.num)[0]
            picks = picks.numpy().astype(np.int32)
            row[_SEAL:] = picks.view(np.uint8)
            row[:_SEAL] = np.frombuffer(_seal(points, picks), np.uint8)
        return picks

    def __reduce__(self) -> tuple:
        return type(self), (self.num,)  # a spawned process has a memory of its own


def _seal(points: np.ndarray, picks: np.ndarray) -> bytes:
    data = hashlib.blake2b(np.ascontiguousarray(points), digest_size=_SEAL)
    data.update(picks)
    return data.digest()
