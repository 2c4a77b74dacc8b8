"""The stored result of a training: which pictures were right, a bit for each.

A result is a file beside the features, whose name hashes whatever changes the result.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lm4ve.files import read_json, write_json
from lm4ve.probing.features import Features
from lm4ve.probing.heads import ProfiledHead

#: Part of every result's key: another number for another recipe.
RECIPE = 3
#: Where heads are trained.
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        head (ProfiledHead): What is trained; its name does not change the result.
        rate (float): The largest learning rate of the one-cycle schedule.
        seed (int): Decides the initialization, the order and a random block.
        steps (int): Batches.
        split (str): What is scored: 'val' while rates are tuned, 'test' at the end.
    """

    head: ProfiledHead
    rate: float
    seed: int
    steps: int
    split: str

    def path(self, features: Features) -> Path:
        """Return the file of the job's result, named by a hash of whatever changes the result.

        Args:
            features (Features): The tokens to train on.
        """
        fields = dict(
            identity=self.head.identity,
            rate=self.rate,
            seed=self.seed,
            steps=self.steps,
            split=self.split,
        )
        key = digest([RECIPE, features.fingerprint, torch.__version__, DEVICE, fields])
        return features.folder / 'trainings' / f'{key}.json'


class Result(NamedTuple):
    """What a training gave.

    Attributes:
        correct (np.ndarray): Which pictures were right, bool ``[n]``.
        seconds (float): How long it took.
    """

    correct: np.ndarray
    seconds: float


def digest(value: Any) -> str:
    """Return 24 hex digits that identify plain data."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def write_result(features: Features, job: Job, result: Result) -> None:
    """Store a result beside the features, with the description of its job for a reader."""
    record = dict(
        variant=asdict(job.head),
        rate=job.rate,
        seed=job.seed,
        steps=job.steps,
        split=job.split,
        correct=np.packbits(result.correct).tobytes().hex(),
        seconds=result.seconds,
    )
    write_json(record, job.path(features))


def read_result(features: Features, job: Job, since: float = 0.0) -> Result | None:
    """Return the stored result of a training, or None if it has to be trained.

    Args:
        features (Features): The tokens that were trained on.
        job (Job): The training.
        since (float): Seconds since the epoch; a result that was stored before does not
            count.

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
    pictures = len(features.data.splits[job.split])
    correct = _unpack(stored.get('correct'), pictures)
    if correct is None:
        return None
    return Result(correct, float(seconds))


def _unpack(bits: Any, count: int) -> np.ndarray | None:
    """Unpack bits that :func:`write_result` wrote, to bool ``[count]``.

    Args:
        bits: The stored value, a string of hex digits if it is not damaged.
        count (int): The number of pictures.

    Returns:
        np.ndarray | None: None if it is no hex string, or one of another length.
    """
    if not isinstance(bits, str):
        return None
    try:
        packed = np.frombuffer(bytes.fromhex(bits), np.uint8)
    except ValueError:
        return None
    if len(packed) != math.ceil(count / 8):
        return None
    return np.unpackbits(packed).astype(bool)[:count]
