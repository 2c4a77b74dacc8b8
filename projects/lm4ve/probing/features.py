"""Features once: an encoder's tokens over data, in a memory-mapped file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm4ve.probing.data import ProbeData
from lm4ve.probing.encoders import Encoder


@dataclass(frozen=True)
class Features:
    """An encoder's tokens over labelled data.

    Attributes:
        tokens (np.ndarray): float16 ``[V, n, N, C]``, memory-mapped. View 0 is the plain
            transform; the others are fixed augmentations, of the training split only.
        labels (np.ndarray): int64 ``[n]``.
        splits (dict[str, np.ndarray]): 'train', 'val' and 'test' -> int64 indices; disjoint.
        classes (tuple[str, ...]): The names of the labels.
        fingerprint (str): Hex; of encoder, data, views, tokens and the libraries.
        folder (Path): Where they lie. Studies store their trainings in it.
        encoder, data (str): How a report names them.
    """

    tokens: np.ndarray
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    fingerprint: str
    folder: Path
    encoder: str
    data: str


def extract_features(
    encoder: Encoder,
    data: ProbeData,
    cache: Path,
    *,
    views: int = 1,
    tokens: int = 16,
    batch_size: int = 64,
    show_progress: bool = True,
) -> Features:
    """Run a frozen encoder once over data."""
    raise NotImplementedError
