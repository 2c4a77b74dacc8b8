"""Labelled data of a user: a folder of class folders, a CSV, or the data sets of a config.

Splits are fixed before anything is trained.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from mmengine.logging import MMLogger

from lm4ve.errors import UserError, check, listing
from lm4ve.probing.duplicates import contents_of, warn_of_two_labels
from lm4ve.probing.items import (
    Item,
    ItemHasher,
    file_of,
    find_damage,
    is_transparent,
    load_item,
    name_of,
)
from lm4ve.probing.rows import list_rows
from lm4ve.probing.splits import FOLDS, assign_splits, drawn_splits

#: Split -> the least number of pictures; a spread over the test needs two.
_LEAST = {'train': 1, 'val': 1, 'test': 2}
#: Damaged pictures that a message names.
_LISTED = 20

#: A picture that cannot be read, and its defect in words that follow its name.
DamagedItem = tuple[Item, str]


@dataclass(frozen=True)
class ProbeData:
    """Labelled pictures, or other inputs of a config's data sets.

    Attributes:
        name (str): What the user called it.
        labels (np.ndarray): int64 ``[n]``.
        splits (dict[str, np.ndarray]): 'train', 'val' and 'test' -> int64 indices;
            disjoint.
        classes (tuple[str, ...]): The names of the labels.
        fingerprint (str): Hex; of the files' contents, labels and splits.
        items (Sequence[Item]): Files, or samples of data sets.
        drawn (frozenset[str]): The splits that were drawn here. Damaged pictures are left
            out of them, and of 'train'; in the others they are an error.
    """

    name: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    fingerprint: str
    items: Sequence[Item]
    drawn: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        """Return a picture in RGB, or what goes into the pipeline of a clip or a cloud.

        Raises:
            DamagedPictureError: It cannot be decoded.
        """
        return load_item(self.items[index])

    def without_damaged(self, indices: np.ndarray) -> 'ProbeData':
        """Return a copy of the data whose splits lack pictures that cannot be decoded.

        A warning names them.

        Args:
            indices (np.ndarray): The damaged pictures, int ``[k]``.

        Raises:
            UserError: A damaged picture is in the user's own val or test, or a class or a
                split has no other picture.
        """
        splits = {}
        refused: list[DamagedItem] = []
        left_out: list[DamagedItem] = []
        for split, own in self.splits.items():
            splits[split] = np.setdiff1d(own, indices)
            damaged = []
            for index in np.intersect1d(own, indices).tolist():
                damaged.append((self.items[index], 'cannot be decoded'))
            if split in self.drawn or split == 'train':
                left_out += damaged
            else:
                refused += damaged
        _report_damage(self.name, refused, left_out)
        _check_splits(self.name, self.labels, splits, self.classes)
        return replace(self, splits=splits)


def read_data(path: str, *, seed: int = 0, limit: int | None = None) -> ProbeData:
    """Read labelled data and fix its splits.

    Args:
        path (str): A folder of class folders, with or without train, val and test above
            them; a CSV with the columns path, label and optionally split and group (a
            group stands on one side of a split only); or ``config:`` and a config's
            file or name, whose training and test data sets are used.
        seed (int): It decides the splits that are made here: 60 % train, 20 % val, 20 %
            test, each class alike. Where only train and test (or val) are given, val is
            a fifth of train.
        limit (int, optional): About so many items, an equal share of each class and
            split.

    Returns:
        ProbeData: Damaged pictures are left out, and, where the splits are made here,
        classes of fewer than five different pictures or groups. Warnings name both.

    Raises:
        UserError: There are no labelled pictures or fewer than two classes, a picture
            of the user's own val or test is damaged, or all of a class are, or a group or
            a class stands on the wrong side.
    """
    rows = list_rows(path)
    if limit is not None:
        check('--limit', limit, least=1)
        rows = _take_share(rows, limit, seed)
    _inspect_items(rows)
    rows = _leave_out_damaged(rows, path)
    rows = rows.assign(content=contents_of(rows))
    warn_of_two_labels(rows, path)
    drawn = drawn_splits(set(rows['split']))
    rows = assign_splits(rows.reset_index(drop=True), path, seed)
    rows = rows.reset_index(drop=True)

    labels, classes = pd.factorize(rows['label'], sort=True)
    check(f"The number of classes in '{path}'", len(classes), least=2)
    splits = {name: np.flatnonzero(rows['split'] == name) for name in _LEAST}
    _check_splits(path, labels, splits, classes)

    transparent = rows['item'][rows['is_transparent']].tolist()
    if transparent:
        _warn_of_transparency(path, transparent)
    fingerprint = _fingerprint(rows)
    items = rows['item'].tolist()
    return ProbeData(path, labels, splits, tuple(classes), fingerprint, items, drawn)


def _take_share(rows: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Draw about ``limit`` rows: an equal share of each class and split.

    Where splits are still to be made, a class keeps enough pictures for all of them, so
    that there may be more rows than ``limit``.
    """
    share = min(limit / len(rows), 1.0)
    has_splits = any(rows['split'])
    fewest = 1 if has_splits else FOLDS
    parts = []
    for _, part in rows.groupby(['label', 'split']):
        count = round(share * len(part))
        count = max(count, min(fewest, len(part)))
        shuffled = part.sample(len(part), random_state=seed)
        parts.append(_first_sound(shuffled, count))
    return pd.concat(parts).sort_index()


def _first_sound(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first rows, until ``count`` sound pictures are among them.

    So a class of which few pictures are drawn is not lost to damage. The damaged ones come
    along, to be reported.
    """
    sound = 0
    for place, item in enumerate(rows['item']):
        if sound == count:
            return rows[:place]
        if find_damage(item) is None:
            sound += 1
    return rows


def _inspect_items(rows: pd.DataFrame) -> None:
    """Add the columns 'digest', 'defect' and 'is_transparent', by reading all files."""
    with ThreadPoolExecutor() as pool:
        rows['digest'] = list(pool.map(ItemHasher(), rows['item']))
        rows['defect'] = list(pool.map(find_damage, rows['item']))
        rows['is_transparent'] = list(pool.map(is_transparent, rows['item']))


def _leave_out_damaged(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of sound pictures; a warning names the damaged ones.

    This comes before splits are drawn, so that it does not depend on their luck.

    Raises:
        UserError: A damaged picture is in the user's own val or test, or all pictures of
            a class are damaged.
    """
    is_damaged = rows['defect'].notna()
    is_scored = rows['split'].isin(['val', 'test'])
    _report_damage(
        name,
        refused=_damaged_items(rows[is_damaged & is_scored]),
        left_out=_damaged_items(rows[is_damaged & ~is_scored]),
    )
    sound = rows[~is_damaged]
    lost = sorted(set(rows['label']) - set(sound['label']))
    if lost:
        raise UserError(
            f"'{name}': all pictures of a class are damaged: {listing(lost)}. Fix: repair "
            'them, or remove the class.'
        )
    return sound


def _damaged_items(rows: pd.DataFrame) -> list[DamagedItem]:
    """Return the item and the defect of each row."""
    return list(zip(rows['item'], rows['defect'], strict=True))


def _report_damage(
    name: str, refused: Sequence[DamagedItem], left_out: Sequence[DamagedItem]
) -> None:
    """Refuse damaged pictures that would change the user's test, and log the others.

    Args:
        name (str): What the user called the data.
        refused (Sequence[DamagedItem]): Damaged pictures in the user's own val or test.
        left_out (Sequence[DamagedItem]): The other ones.

    Raises:
        UserError: There are refused ones.
    """
    if refused:
        raise UserError(
            f"'{name}': {len(refused)} damaged picture(s) in val or test: "
            f'{_describe_damage(refused)}. Fix: repair or remove them.'
        )
    if left_out:
        MMLogger.get_current_instance().warning(
            f"'{name}': left out: {len(left_out)} damaged picture(s): "
            f'{_describe_damage(left_out)}.'
        )


def _describe_damage(damaged: Sequence[DamagedItem]) -> str:
    """Return the first damaged pictures with their defects, and how many more there are."""
    return listing([f'{name_of(item)} {defect}' for item, defect in damaged], _LISTED)


def _check_splits(
    name: str, labels: np.ndarray, splits: Mapping[str, np.ndarray], classes: Sequence
) -> None:
    """Check that each split has enough pictures, and each class one to train on.

    Args:
        name (str): What the user called the data.
        labels (np.ndarray): int64 ``[n]``.
        splits (Mapping[str, np.ndarray]): Split -> indices.
        classes (Sequence[str]): The names of the labels.

    Raises:
        UserError: A split has too few pictures, or classes have none in train.
    """
    for split, least in _LEAST.items():
        field = f"The number of pictures for {split} in '{name}'"
        check(field, len(splits[split]), least=least)
    trained = set(labels[splits['train']].tolist())
    untrained = [
        class_name for label, class_name in enumerate(classes) if label not in trained
    ]
    if untrained:
        raise UserError(
            f"'{name}': classes without a training picture: {listing(untrained)}."
        )


def _warn_of_transparency(path: str, items: Sequence[Item]) -> None:
    """Log which pictures of the data at ``path`` have transparent parts, and what happens."""
    names = [file_of(item) for item in items]
    MMLogger.get_current_instance().warning(
        f"'{path}': {len(items)} picture(s) are transparent in part: the color that is "
        f'stored under it counts, which is often black ({listing(names, 3)}). '
        'Fix: lay them on one color.'
    )


def _fingerprint(rows: pd.DataFrame) -> str:
    """Return hex digits that identify data by contents, labels and splits.

    Args:
        rows (pd.DataFrame): With the columns 'digest', 'label' and 'split'.
    """
    facts = rows[['digest', 'label', 'split']].to_json()
    # Earlier versions decoded pictures by Pillow. Their tokens in a cache must not be
    # taken for today's.
    facts += 'decoded by OpenCV'
    return hashlib.sha256(facts.encode()).hexdigest()
