"""Looks for one picture in training and validation, or under two labels.

Pictures are compared after decoding (:mod:`lm4ve.data.twins`), so that a copy in another
format is seen, too. Of large data a part is drawn: a pair is seen if both of its pictures
are among it.
"""

import random
import time
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np

from lm4ve.data.image_files import ImageFilesMixin, decode_pixels
from lm4ve.data.twins import group_twins, shrink
from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import listing
from lm4ve.runner.scored_data import datasets_within

#: Pictures of all data sets together.
_COMPARED = 2000
#: Seconds, after which no further picture is read.
_PATIENCE = 10.0
_THREADS = 16
_CHUNK = 128
#: Groups of twins that a sentence names.
_NAMED = 3


@dataclass(frozen=True)
class _Picture:
    """A picture of a data set, and what it is used for."""

    dataset: ImageFilesMixin
    path: str
    split: str
    label: Any

    def read(self) -> bytes:
        """Return the file's content; nothing of a damaged file.

        Raises:
            TooLargeError: It has too many pixels.
            StorageError: Storage does not give it.
        """
        if self.dataset.find_defect_if_given(self.path) is not None:
            return b''
        return self.dataset.read_file(self.path)


def check_twins(plan: Plan) -> Finding:
    """Compare pictures of training and validation, or a part of them.

    Raises:
        TooLargeError: One has too many pixels.
        StorageError: Storage does not give one.
    """
    ends_at = time.monotonic() + _PATIENCE
    total, drawn = _draw(plan)
    if not drawn:
        return Finding('no files of pictures')
    pictures, small = _shrink_until(drawn, ends_at)

    def read(place: int) -> np.ndarray | None:
        """Return the pixels of a picture, while there is time."""
        if time.monotonic() > ends_at:
            return None
        content = pictures[place].read()
        return decode_pixels(content) if content else None

    groups: dict[int, list[_Picture]] = {}
    for picture, group in zip(pictures, group_twins(small, read), strict=True):
        groups.setdefault(group, []).append(picture)
    problems = _describe(list(groups.values()))
    return warning_if(problems, f'{len(pictures):,} of {total:,} pictures compared')


def _draw(plan: Plan) -> tuple[int, list[_Picture]]:
    """Return how many samples have files of pictures, and those that are compared."""
    sources = []
    for split, loader in plan.loaders.items():
        for dataset in datasets_within(loader.dataset):
            if isinstance(dataset, ImageFilesMixin):
                sources.append((split, dataset))
    total = sum(len(dataset) for _, dataset in sources)
    share = min(1.0, _COMPARED / max(1, total))
    draw = random.Random(0)
    drawn: dict[tuple[str, str], _Picture] = {}
    for split, dataset in sources:
        count = round(share * len(dataset))
        for index in draw.sample(range(len(dataset)), count):
            info = dataset.get_data_info(index)
            path = dataset.path_of(info)
            # Several questions may be about one picture.
            picture = _Picture(dataset, path, split, info.get('gt_label'))
            drawn.setdefault((split, path), picture)
    return total, list(drawn.values())


def _shrink_until(
    drawn: list[_Picture], ends_at: float
) -> tuple[list[_Picture], list[np.ndarray | None]]:
    """Return the pictures that were read in time, with their small versions."""
    # So that a part of them, too, is of all data sets.
    random.Random(0).shuffle(drawn)
    small: list[np.ndarray | None] = []
    with ThreadPool(_THREADS) as pool:
        while len(small) < len(drawn) and time.monotonic() < ends_at:
            chunk = drawn[len(small) : len(small) + _CHUNK]
            small += pool.map(_shrink, chunk)
    return drawn[: len(small)], small


def _shrink(picture: _Picture) -> np.ndarray | None:
    """Return a picture's small version; None of a damaged file."""
    content = picture.read()
    return shrink(content) if content else None


def _describe(groups: list[list[_Picture]]) -> str:
    """Return sentences on twins in two splits, and on twins of two labels; '' without."""
    shared = []
    contradicting = []
    for group in groups:
        if len({picture.split for picture in group}) > 1:
            shared.append(_name_two(group, 'split'))
        if len({str(picture.label) for picture in group}) > 1:
            contradicting.append(_name_two(group, 'label'))
    sentences = []
    if shared:
        sentences.append(
            f'{len(shared)} picture(s) are in train and val, whose score is too high: '
            f'{listing(shared, _NAMED)}. Fix: remove one of each; '
            'tools/image/split_folder.py keeps them on one side.'
        )
    if contradicting:
        sentences.append(
            f'{len(contradicting)} picture(s) have several labels: '
            f'{listing(contradicting, _NAMED)}. Fix: remove the wrong ones.'
        )
    return ' '.join(sentences)


def _name_two(group: list[_Picture], field: str) -> str:
    """Return the paths of two pictures of a group that differ in a field, with its values."""
    first = group[0]
    for other in group[1:]:
        if getattr(other, field) != getattr(first, field):
            break
    names = []
    for picture in (first, other):
        names.append(f"'{picture.path}' ({getattr(picture, field)})")
    return ' = '.join(names)
