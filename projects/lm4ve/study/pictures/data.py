"""Labelled data of a user: a folder of class folders, a CSV, or the data sets of a config.

Splits are fixed before anything is trained.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mmengine.logging import MMLogger

from lm4ve.errors import UserError, check, listing
from lm4ve.files import write_csv
from lm4ve.study.pictures.duplicates import contents_of, warn_of_two_labels
from lm4ve.study.pictures.items import (
    Item,
    ItemHasher,
    file_of,
    find_damage,
    is_transparent,
    load_item,
    name_of,
)
from lm4ve.study.pictures.rows import LeftOut, list_rows
from lm4ve.study.pictures.splits import FOLDS, assign_splits

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
        fingerprint (str): Hex; of the files' contents in their order.
        items (Sequence[Item]): Files, or samples of data sets.
        groups (np.ndarray): The group of each picture, int64 ``[n]``; those that show
            the same are in one. Without: each is one.
        drawn (frozenset[str]): The splits that were drawn here. Damaged pictures are left
            out of them, and of 'train'; in the others they are an error.
        left_out (tuple[LeftOut, ...]): What is not used, each with the reason.
    """

    name: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    fingerprint: str
    items: Sequence[Item]
    groups: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    drawn: frozenset[str] = frozenset()
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        """Make each picture a group where none are given."""
        if len(self.groups) == 0:
            object.__setattr__(self, 'groups', np.arange(len(self.labels)))

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
        _refuse_damage(self.name, refused)
        _check_splits(self.name, self.labels, splits, self.classes)
        known = dict(self.left_out)
        known.update(_describe_damage(left_out))
        return replace(self, splits=splits, left_out=tuple(known.items()))


def read_data(
    path: str,
    *,
    seed: int = 0,
    limit: int | None = None,
    group_by: str | None = None,
) -> ProbeData:
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
        group_by (str, optional): What puts pictures into groups: 'parent', the folder of
            a file, or a column of the CSV (by default 'group', if there is one), or a
            field of a data set's samples.

    Returns:
        ProbeData: Damaged pictures are left out, and, where the splits are made here,
        classes of fewer than five different pictures or groups.

    Raises:
        UserError: There are no labelled pictures or fewer than two classes, a picture
            of the user's own val or test is damaged, or all of a class are, or a group or
            a class stands on the wrong side.
    """
    rows, left_out = list_rows(path, group_by)
    if limit is not None:
        check('--limit', limit, least=1)
        rows = _take_share(rows, limit, seed)
    _inspect_items(rows)
    rows, damaged = _leave_out_damaged(rows, path)
    left_out += _describe_damage(damaged)
    rows = rows.assign(content=contents_of(rows))
    warn_of_two_labels(rows, path)
    rows = rows.reset_index(drop=True)
    rows, rare, drawn = assign_splits(rows, path, seed)
    left_out += [(name_of(item), 'of a class with too few pictures') for item in rare]
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
    return ProbeData(
        name=path,
        labels=labels,
        splits=splits,
        classes=tuple(classes),
        fingerprint=fingerprint,
        items=items,
        groups=pd.factorize(rows['joined_group'])[0],
        drawn=drawn,
        left_out=tuple(left_out),
    )


def write_left_out(data: ProbeData, path: Path) -> None:
    """Write which files are not used and why, and warn of their number.

    Args:
        data (ProbeData): The data.
        path (Path): A CSV; without such files it is removed.
    """
    path.unlink(missing_ok=True)
    if data.left_out:
        write_csv(('path', 'reason'), data.left_out, path)
        MMLogger.get_current_instance().warning(
            f"'{data.name}': {len(data.left_out)} file(s) are not used, for the reasons in "
            f"'{path}'."
        )


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


def _leave_out_damaged(
    rows: pd.DataFrame, name: str
) -> tuple[pd.DataFrame, list[DamagedItem]]:
    """Return the rows of sound pictures, and the damaged ones.

    This comes before splits are drawn, so that it does not depend on their luck.

    Raises:
        UserError: A damaged picture is in the user's own val or test, or all pictures of
            a class are damaged.
    """
    is_damaged = rows['defect'].notna()
    is_scored = rows['split'].isin(['val', 'test'])
    _refuse_damage(name, _damaged_items(rows[is_damaged & is_scored]))
    sound = rows[~is_damaged]
    lost = sorted(set(rows['label']) - set(sound['label']))
    if lost:
        raise UserError(
            f"'{name}': all pictures of a class are damaged: {listing(lost)}. Fix: repair "
            'them, or remove the class.'
        )
    return sound, _damaged_items(rows[is_damaged])


def _damaged_items(rows: pd.DataFrame) -> list[DamagedItem]:
    """Return the item and the defect of each row."""
    return list(zip(rows['item'], rows['defect'], strict=True))


def _refuse_damage(name: str, damaged: Sequence[DamagedItem]) -> None:
    """Refuse damaged pictures in the user's own val or test, which would change it.

    Args:
        name (str): What the user called the data.
        damaged (Sequence[DamagedItem]): Those in val or test.

    Raises:
        UserError: There are some; it names the first ones.
    """
    if damaged:
        described = [f'{path} {defect}' for path, defect in _describe_damage(damaged)]
        raise UserError(
            f"'{name}': {len(damaged)} damaged picture(s) in val or test: "
            f'{listing(described, _LISTED)}. Fix: repair or remove them.'
        )


def _describe_damage(damaged: Sequence[DamagedItem]) -> list[LeftOut]:
    """Return the names of damaged pictures, each with its defect."""
    return [(name_of(item), defect) for item, defect in damaged]


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
    """Return hex digits that identify data by contents.

    Args:
        rows (pd.DataFrame): With the column 'digest'.
    """
    facts = rows['digest'].to_json()
    # Earlier versions decoded pictures by Pillow. Their tokens in a cache must not be
    # taken for today's.
    facts += 'decoded by OpenCV'
    return hashlib.sha256(facts.encode()).hexdigest()
