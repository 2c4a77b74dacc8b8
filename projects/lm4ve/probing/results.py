"""The stored result of a training: the class that it gave each picture.

A result is a file beside the features, whose name hashes whatever changes the result.
"""

import hashlib
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch

from lm4ve.files import read_json, write_json
from lm4ve.probing.features import Features
from lm4ve.probing.heads import ProfiledHead
from lm4ve.runner.devices import find_device

#: Part of every result's key: another number for another recipe.
RECIPE = 4
#: A label in a file.
_STORED = np.dtype('<i4')


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        head (ProfiledHead): What is trained; its name does not change the result.
        tuned (float): The largest learning rate of the one-cycle schedule; C of
            'logreg', k of 'knn'.
        seed (int): Decides the initialization, the order, a random block and the
            pictures of few shots.
        steps (int): Batches.
        split (str): What is scored: 'val' while values are tuned, 'test' at the end.
        dtype (str): The type of the products, 'float32' or 'bfloat16'.
        shots (int): Pictures of each class that it trains on; 0: all.
    """

    head: ProfiledHead
    tuned: float
    seed: int
    steps: int
    split: str
    dtype: str = 'float32'
    shots: int = 0

    @property
    def trained_splits(self) -> list[str]:
        """The splits whose pictures are trained on.

        The tuned value is fixed by the time of the test, so that the pictures which
        tuned it may train. Few shots are drawn from the pictures to train alone.
        """
        if self.split == 'test' and self.shots == 0:
            return ['train', 'val']
        return ['train']

    def path(self, features: Features) -> Path:
        """Return the file of the job's result, named by a hash of whatever changes the result.

        Args:
            features (Features): The tokens to train on.
        """
        fields = dict(
            identity=self.head.identity,
            reads=self.head.reads,
            shots=self.shots,
            tuned=self.tuned,
            seed=self.seed,
            steps=self.steps,
            split=self.split,
            dtype=self.dtype,
        )
        library = sklearn.__version__ if self.head.is_fitted else torch.__version__
        device = find_device(None).type
        key = digest([RECIPE, features.fingerprint, library, device, fields])
        return features.folder / 'trainings' / f'{key}.json'


class Result(NamedTuple):
    """What a training gave.

    Attributes:
        predicted (np.ndarray): The label of each of n pictures, int64 ``[n]``; -1 where
            a training diverged, so that its scores are not finite.
        seconds (float): How long it took.
    """

    predicted: np.ndarray
    seconds: float


def digest(value: Any) -> str:
    """Return 24 hex digits that identify plain data."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def write_result(features: Features, job: Job, result: Result) -> None:
    """Store a result beside the features, with the description of its job for a reader."""
    record = dict(
        variant=asdict(job.head),
        tuned=job.tuned,
        seed=job.seed,
        steps=job.steps,
        split=job.split,
        dtype=job.dtype,
        shots=job.shots,
        predicted=result.predicted.astype(_STORED).tobytes().hex(),
        seconds=result.seconds,
    )
    write_json(record, job.path(features))


def read_result(features: Features, job: Job, since: float = 0.0) -> Result | None:
    """Return the stored result of a training, or None if it has to be trained.

    Args:
        features (Features): The tokens that were trained on.
        job (Job): The training.
        since (float): A time of :func:`time_of_disk`; a result that was stored before
            does not count.

    Returns:
        Result | None: None if the file is missing, older than ``since``, or damaged.
    """
    path = job.path(features)
    stored = read_json(path)
    if not isinstance(stored, dict) or path.stat().st_mtime < since:
        return None
    seconds: Any = stored.get('seconds')
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        return None
    predicted = _unpack(stored.get('predicted'))
    pictures = len(features.data.splits[job.split])
    if predicted is None or len(predicted) != pictures:
        return None
    if predicted.min() < -1 or predicted.max() >= len(features.data.classes):
        return None
    return Result(predicted, float(seconds))


def time_of_disk(folder: Path) -> float:
    """Return the time by the clock that dates a folder's files, in seconds since the epoch.

    A share's server may have another clock than this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        return os.stat(file.name).st_mtime


def _unpack(digits: Any) -> np.ndarray | None:
    """Unpack labels that :func:`write_result` wrote, to int64 ``[n]``.

    Args:
        digits: The stored value, a string of hex digits if it is not damaged.

    Returns:
        np.ndarray | None: None if it is no hex string of whole labels.
    """
    if not isinstance(digits, str):
        return None
    try:
        return np.frombuffer(bytes.fromhex(digits), _STORED).astype(np.int64)
    except ValueError:
        return None
