"""Checks a sample of the data's files by decoding them.

Opening all of 1.28 million files takes a quarter of an hour, and one disk that returns
zeros or one archive that was cut damages many. So files are drawn at random: with n of
them, damage in a share p of all files is seen with the probability 1 - (1 - p)^n. Beside
these, the first and the last file of each class are opened, since a copy that was cut
off ends in the middle of a folder.
"""

import random
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.dry_run.data import datasets_within
from lm4ve.dry_run.finding import Finding
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError

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
        UserError: One is damaged.
    """
    seed = (plan.cfg.get('randomness') or {}).get('seed') or 0
    parts = []
    for split, loader in plan.loaders.items():
        for dataset in datasets_within(loader.dataset):
            # Each process draws others, so that more are opened together.
            draw = random.Random(f'{seed} {get_rank()} {split}')
            ends = plan.class_ends[split]
            if isinstance(dataset, IntegrityMixin):
                parts.append(f'{split} {_open_files(dataset, draw, ends)}')
            else:
                parts.append(f'{split} {_read_samples(dataset, draw)}')
    return Finding('; '.join(parts) or 'none')


def _open_files(
    dataset: IntegrityMixin, draw: random.Random, ends: Sequence[int]
) -> str:
    """Decode files of a data set, those drawn at random first; return how many.

    Args:
        dataset (IntegrityMixin): The data set.
        draw (Random): Draws the files.
        ends (Sequence[int]): Further samples whose files are opened.

    Raises:
        UserError: One is damaged.
    """
    ends_at = time.monotonic() + _PATIENCE
    drawn = draw.sample(range(len(dataset)), min(_DRAWN, len(dataset)))

    def find_defect(index: int) -> tuple[str, str | None]:
        path = dataset.path_of(dataset.get_data_info(index))
        return path, dataset.find_defect(path, decode=True)

    count_drawn = _find_none(find_defect, drawn, ends_at, dataset.noun)
    text = f'{count_drawn:,} of {len(dataset):,} {dataset.noun}s at random'
    if ends:
        count_ends = _find_none(find_defect, ends, ends_at, dataset.noun)
        text += f' and {count_ends:,} first and last of a class'
    return f'{text}, none damaged ({describe_odds(count_drawn, len(dataset))})'


def _find_none(
    find_defect: Callable[[int], tuple[str, str | None]],
    indices: Sequence[int],
    ends_at: float,
    noun: str,
) -> int:
    """Open the files of samples until the time is over; return how many were opened.

    Args:
        find_defect (Callable): Returns the path of a sample's file and its defect.
        indices (Sequence[int]): The samples.
        ends_at (float): When to stop, on the monotonic clock.
        noun (str): What a file is called.

    Raises:
        UserError: One is damaged.
    """
    opened = 0
    with ThreadPool(_THREADS) as pool:
        while opened < len(indices) and time.monotonic() < ends_at:
            chunk = indices[opened : opened + _CHUNK]
            for path, defect in pool.map(find_defect, chunk):
                if defect is not None:
                    raise UserError(
                        f"The {noun} '{path}' {defect}. Fix: fetch it again; "
                        "dataset.verify='decode' finds all that are damaged."
                    )
            opened += len(chunk)
    return opened


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
