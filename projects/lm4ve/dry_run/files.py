"""Checks a sample of the training's files by decoding them.

What is scored was read whole, when its data set was built. Opening all of 1.28 million
files takes a quarter of an hour, and one disk that returns zeros or one archive that was
cut damages many. So files are drawn at random: with n of them, damage in a share p of all
files is seen with the probability 1 - (1 - p)^n. Beside these, the first and the last
file of each class are opened, since a copy that was cut off ends in the middle of a
folder. Training replaces damaged samples, so that these are a warning.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError
from lm4ve.runner.scored_data import datasets_within

#: Files drawn of a data set: damage in 0.1 % of them is seen in 95 of 100 runs.
_DRAWN = 3000
#: Samples drawn of a data set without files of its own, through its pipeline.
_SAMPLES = 100
#: Seconds for a data set; its last files are left out after that.
_PATIENCE = 15.0
_THREADS = 16
#: Files that the threads get at a time.
_CHUNK = 128
#: How often damage as rare as the table says would be seen.
_CONFIDENCE = 0.95


def check_files(plan: Plan) -> Finding:
    """Decode files of all data sets.

    Raises:
        UserError: One is damaged, and its data set refuses damage.
        StorageError: Storage does not give one.
    """
    if plan.damage is not None:
        raise plan.damage
    seed = (plan.cfg.get('randomness') or {}).get('seed') or 0
    parts = []
    problems = []
    for split, loader in plan.loaders.items():
        for dataset in datasets_within(loader.dataset):
            # Each process draws others, so that more are opened together.
            draw = random.Random(f'{seed} {get_rank()} {split}')
            ends = plan.class_ends[split]
            if not isinstance(dataset, IntegrityMixin):
                parts.append(f'{split} {_read_samples(dataset, draw)}')
            elif dataset.is_scanned():
                left_out = dataset.num_left_out
                total = len(dataset) + left_out
                parts.append(
                    f'{split} all {total:,} samples read, {left_out:,} left out'
                )
            else:
                found = _open_files(dataset, draw, ends)
                parts.append(f'{split} {found.text}')
                if found.defect is not None:
                    problems.append(_problem_of(dataset, found.defect))
    return warning_if(' '.join(problems), '; '.join(parts) or 'none')


def _problem_of(dataset: IntegrityMixin, defect: str) -> str:
    """Return the sentence on a damaged file that a training replaces.

    Raises:
        UserError: The data set refuses it.
    """
    sentence = f"{defect}. Fix: fetch it again; dataset.verify='decode' finds all that are damaged."
    if dataset.refuses or dataset.test_mode:
        raise UserError(sentence)
    return f'Other samples will replace damaged ones. {sentence}'


@dataclass(frozen=True)
class Opened:
    """What came of opening files: words for the table, and the first damaged file."""

    text: str
    defect: str | None


def _open_files(
    dataset: IntegrityMixin, draw: random.Random, ends: Sequence[int]
) -> Opened:
    """Decode files of a data set, those drawn at random first, until one is damaged.

    Args:
        dataset (IntegrityMixin): The data set.
        draw (Random): Draws the files.
        ends (Sequence[int]): Further samples whose files are opened.
    """
    ends_at = time.monotonic() + _PATIENCE
    drawn = draw.sample(range(len(dataset)), min(_DRAWN, len(dataset)))

    def find_defect(index: int) -> str | None:
        path = dataset.path_at(index)
        defect = dataset.find_defect_if_given(path, decode=True)
        if defect is None:
            return None
        return f"The {dataset.noun} '{path}' {defect}"

    count_drawn, defect = _open_until(find_defect, drawn, ends_at)
    text = f'{count_drawn:,} of {len(dataset):,} {dataset.noun}s at random'
    if ends and defect is None:
        count_ends, defect = _open_until(find_defect, ends, ends_at)
        text += f' and {count_ends:,} first and last of a class'
    if defect is None:
        text += f', none damaged ({describe_odds(count_drawn, len(dataset))})'
    return Opened(text, defect)


def _open_until(
    find_defect: Callable[[int], str | None], indices: Sequence[int], ends_at: float
) -> tuple[int, str | None]:
    """Open the files of samples until one is damaged or the time is over.

    Args:
        find_defect (Callable): Returns a sentence on the defect of a sample's file.
        indices (Sequence[int]): The samples.
        ends_at (float): When to stop, on the monotonic clock.

    Returns:
        tuple[int, str | None]: How many were opened, and the first such sentence.
    """
    opened = 0
    with ThreadPool(_THREADS) as pool:
        while opened < len(indices) and time.monotonic() < ends_at:
            chunk = indices[opened : opened + _CHUNK]
            defects = pool.map(find_defect, chunk)
            opened += len(chunk)
            for defect in defects:
                if defect is not None:
                    return opened, defect
    return opened, None


def describe_odds(opened: int, total: int) -> str:
    """Say how much damage would have been seen, after a number of sound files.

    Args:
        opened (int): Files drawn at random without replacement, none of them damaged.
        total (int): All files.
    """
    if opened >= total:
        return 'all of them'
    if opened == 0:
        return 'no time to open one'
    share = 1 - (1 - _CONFIDENCE) ** (1 / opened)
    return f'damage in {share:.2%} of all would be seen in {_CONFIDENCE:.0%} of runs'


def _read_samples(dataset: Any, draw: random.Random) -> str:
    """Read samples of a data set through its pipeline; return how many.

    Raises:
        Exception: What its pipeline raises.
    """
    ends_at = time.monotonic() + _PATIENCE
    read = (
        dataset.prepare_data
        if isinstance(dataset, BaseDataset)
        else dataset.__getitem__
    )
    count = 0
    for index in draw.sample(range(len(dataset)), min(_SAMPLES, len(dataset))):
        read(index)
        count += 1
        if time.monotonic() > ends_at:
            break
    return f'{count:,} of {len(dataset):,} samples read'
