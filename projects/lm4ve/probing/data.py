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
from lm4ve.probing.items import (
    Item,
    ItemHasher,
    file_of,
    find_damage,
    is_transparent,
    load_item,
)
from lm4ve.probing.rows import list_rows
from lm4ve.probing.splits import FOLDS, assign_splits

#: Split -> the least number of pictures; a spread over the test needs two.
_LEAST = {'train': 1, 'val': 1, 'test': 2}


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
    """

    name: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    fingerprint: str
    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        """Return a picture in RGB, or what goes into the pipeline of a clip or a cloud.

        Raises:
            DamagedPictureError: It cannot be decoded.
        """
        return load_item(self.items[index])

    def without_damaged(
        self, indices: np.ndarray, defects: Mapping[int, str] | None = None
    ) -> 'ProbeData':
        """Return a copy of the data whose training split lacks damaged pictures.

        A warning names them.

        Args:
            indices (np.ndarray): The damaged pictures, int ``[k]``.
            defects (Mapping[int, str], optional): Index -> what is wrong with the
                picture, where it is known.

        Raises:
            UserError: A damaged picture is of val or test, where it would change the
                score, or a class has no other training picture.
        """
        scored = np.concatenate([self.splits['val'], self.splits['test']])
        in_scored = self._describe(np.intersect1d(indices, scored), defects)
        if in_scored:
            raise UserError(
                f"'{self.name}': {len(in_scored)} damaged picture(s) in val or test: "
                f'{listing(in_scored)}. Fix: repair or remove them.'
            )
        in_train = np.intersect1d(indices, self.splits['train'])
        left_out = self._describe(in_train, defects)
        if left_out:
            MMLogger.get_current_instance().warning(
                f"'{self.name}': {len(left_out)} damaged picture(s) left out: "
                f'{listing(left_out)}.'
            )
        train = np.setdiff1d(self.splits['train'], indices)
        trained = set(self.labels[train].tolist())
        untrained = [
            name for label, name in enumerate(self.classes) if label not in trained
        ]
        if untrained:
            raise UserError(
                f"'{self.name}': classes without a training picture: {listing(untrained)}."
            )
        return replace(self, splits={**self.splits, 'train': train})

    def _describe(
        self, indices: np.ndarray, defects: Mapping[int, str] | None
    ) -> list[str]:
        """Return a text for each damaged picture: its file or item, and its defect."""
        described = []
        for index in indices.tolist():
            item = self.items[index]
            defect = 'cannot be decoded'
            if defects is not None and index in defects:
                defect = defects[index]
            described.append(f'{file_of(item) or item} {defect}')
        return described


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
        ProbeData: Damaged pictures of the training split are left out, and, where the
        splits are made here, classes of fewer than five pictures. Warnings name both.

    Raises:
        UserError: There are no labelled pictures or fewer than two classes, a picture
            of val or test is damaged, a group or a class stands on the wrong side.
    """
    rows = list_rows(path)
    if limit is not None:
        check('--limit', limit, least=1)
        rows = _take_share(rows, limit, seed)
    _inspect_items(rows)
    rows = assign_splits(rows.reset_index(drop=True), path, seed)
    rows = rows.reset_index(drop=True)

    labels, classes = pd.factorize(rows['label'], sort=True)
    check(f"The number of classes in '{path}'", len(classes), least=2)
    splits = {}
    for split, least in _LEAST.items():
        splits[split] = np.flatnonzero(rows['split'] == split)
        field = f"The number of pictures for {split} in '{path}'"
        check(field, len(splits[split]), least=least)

    transparent = rows['item'][rows['is_transparent']].tolist()
    if transparent:
        _warn_of_transparency(path, transparent)
    fingerprint = _fingerprint(rows, has_transparent=bool(transparent))
    items = rows['item'].tolist()
    data = ProbeData(path, labels, splits, tuple(classes), fingerprint, items)
    defects = rows['defect'].dropna().to_dict()
    return data.without_damaged(np.array(list(defects), int), defects)


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
        parts.append(part.sample(count, random_state=seed))
    return pd.concat(parts).sort_index()


def _inspect_items(rows: pd.DataFrame) -> None:
    """Add the columns 'digest', 'defect' and 'is_transparent', by reading all files."""
    with ThreadPoolExecutor() as pool:
        rows['digest'] = list(pool.map(ItemHasher(), rows['item']))
        rows['defect'] = list(pool.map(find_damage, rows['item']))
        rows['is_transparent'] = list(pool.map(is_transparent, rows['item']))


def _warn_of_transparency(path: str, items: Sequence[Item]) -> None:
    """Log which pictures of the data at ``path`` have transparent parts, and what happens."""
    names = [file_of(item) for item in items]
    MMLogger.get_current_instance().warning(
        f"'{path}': {len(items)} picture(s) are transparent in part: the color that is "
        f'stored under it counts, which is often black ({listing(names, 3)}). '
        'Fix: lay them on one color.'
    )


def _fingerprint(rows: pd.DataFrame, has_transparent: bool) -> str:
    """Return hex digits that identify data by contents, labels and splits.

    Args:
        rows (pd.DataFrame): With the columns 'digest', 'label' and 'split'.
        has_transparent (bool): Whether a picture has transparent parts.
    """
    facts = rows[['digest', 'label', 'split']].to_json()
    if has_transparent:
        # An earlier release laid transparent pictures on white. Their tokens in a cache
        # of that time must not be taken for today's.
        facts += 'transparency dropped'
    return hashlib.sha256(facts.encode()).hexdigest()
