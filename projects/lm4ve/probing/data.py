"""Labelled data of a user: a folder of class folders, a CSV, or a config's data sets."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ProbeData:
    """Labelled pictures, or other inputs of a config's data sets.

    Attributes:
        name (str): What the user called it.
        labels (np.ndarray): int64 ``[n]``.
        splits (dict[str, np.ndarray]): 'train', 'val' and 'test' -> int64 indices; disjoint.
        classes (tuple[str, ...]): The names of the labels.
        fingerprint (str): Hex; of the files' contents, labels and splits.
    """

    name: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError


def read_data(path: str, *, seed: int = 0, limit: int | None = None) -> ProbeData:
    """Read labelled data."""
    raise NotImplementedError
