"""Labelled data of a user: a folder of class folders, a CSV, or the data sets of a config.

Splits are fixed before anything is trained. A file that stands on both sides of a split makes a
score too high, so that files of equal content count as one where splits are made here.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from PIL import Image, ImageOps
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lm4ve.errors import UserError, check, listing
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.batches import trained_dataset
from lm4ve.tasks.base.image_files import find_defect

#: What folders and CSV files call a split -> its name here.
SPLITS = dict(train='train', val='val', valid='val', validation='val', dev='val', test='test')
#: A fifth of the data is for tests, a fifth for choosing the rate, the rest for training.
FOLDS = 5


class DamagedPictureError(UserError):
    """A picture cannot be decoded."""


@dataclass(frozen=True)
class ProbeData:
    """Labelled pictures, or other inputs of a config's data sets.

    Attributes:
        name (str): What the user called it.
        labels (np.ndarray): int64 ``[n]``.
        splits (dict[str, np.ndarray]): 'train', 'val' and 'test' -> int64 indices; disjoint.
        classes (tuple[str, ...]): The names of the labels.
        fingerprint (str): Hex; of the files' contents, labels and splits.
        items (Sequence): Files, or pairs of a data set and an index in it.
    """

    name: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    fingerprint: str
    items: Sequence[Any] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        """Return a picture in RGB, or what goes into the pipeline of a clip or a cloud.

        Raises:
            DamagedPictureError: It cannot be decoded.
        """
        item = self.items[index]
        if isinstance(item, Path):
            return read_picture(item)
        info = _info(item)
        if 'img' in info:
            return Image.fromarray(info['img'][..., ::-1])  # mmcv's order is BGR
        return read_picture(info['img_path']) if 'img_path' in info else info


def read_picture(path: str | Path) -> Image.Image:
    """Read a picture of any format of Pillow, in 8-bit RGB.

    As mmcv does for the configs: turned upright by its EXIF tag, gray repeated, CMYK converted,
    16 bits cut to their upper 8. Unlike there, what is transparent becomes white, since the
    color that a file holds under it was never seen.

    Raises:
        DamagedPictureError: It cannot be decoded, or has pixels of 32 bits.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith('I;16'):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.mode in ('I', 'F'):
            raise OSError('pixels of 32 bits')
        if picture.has_transparency_data:
            picture = picture.convert('RGBA')
            white = Image.new('RGBA', picture.size, 'white')
            picture = Image.alpha_composite(white, picture)
        return picture.convert('RGB')
    except Exception as e:  # Pillow's decoders raise anything
        raise DamagedPictureError(f"The picture '{path}' cannot be decoded ({e}).") from e


def read_data(path: str, *, seed: int = 0, limit: int | None = None) -> ProbeData:
    """Read labelled data and fix its splits.

    Args:
        path (str): A folder of class folders, with or without train, val and test above them; a
            CSV with the columns path, label and optionally split and group (a group stands on
            one side of a split only); or ``config:`` and a config's file or name, whose
            training and test data sets are used.
        seed (int): Of the splits that are made here: 60 % train, 20 % val, 20 % test, each
            class alike. Where only train and test (or val) are given, val is a fifth of train.
        limit (int, optional): At most so many items, an equal share of each class and split.

    Returns:
        ProbeData: Damaged pictures of the training split are left out, and, where the splits
        are made here, classes of fewer than five pictures. Warnings name both.

    Raises:
        UserError: There are no labelled pictures or fewer than two classes, a picture of val or
            test is damaged, a group or a class stands on the wrong side.
    """
    if path.startswith('config:') or path.endswith('.py'):
        rows = _rows_of_config(read_config(path.removeprefix('config:')))
    elif Path(path).is_dir():
        rows = _rows_of_folder(Path(path))
    else:
        rows = _rows_of_csv(Path(path))
    if limit is not None:
        check('--limit', limit, least=1)
        order = rows.sample(frac=1, random_state=seed).groupby(['label', 'split'], sort=False)
        rank = (order.cumcount() + 0.5) / order['label'].transform('size')
        rows = rows.loc[rank.sort_values(kind='stable').index[:limit].sort_values()]
    rows = rows.reset_index(drop=True)
    with ThreadPoolExecutor() as pool:
        rows['digest'], rows['defect'] = zip(*pool.map(_examine, rows['item']), strict=True)
    rows = _with_splits(rows, path, seed)
    classes = tuple(sorted(rows['label'].unique()))
    labels = rows['label'].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
    facts = [classes, *(rows[name].tolist() for name in ('digest', 'label', 'split'))]
    return ProbeData(
        path,
        labels,
        {name: np.flatnonzero(rows['split'] == name) for name in ('train', 'val', 'test')},
        classes,
        hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        rows['item'].tolist(),
    )


def _rows_of_folder(root: Path) -> pd.DataFrame:
    """List the pictures of class folders; a row has item, label, split and group."""
    Image.init()
    endings = {end for end, name in Image.EXTENSION.items() if name in Image.OPEN}
    tops = sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != '.')
    has_splits = any(p.name == 'train' for p in tops) and all(p.name in SPLITS for p in tops)
    rows = []
    for split in tops if has_splits else [root]:
        for folder in sorted(p for p in split.iterdir() if p.is_dir() and p.name[0] != '.'):
            files = (p for p in sorted(folder.rglob('*')) if p.suffix.lower() in endings)
            name = SPLITS[split.name] if has_splits and len(tops) > 1 else ''
            rows += [(p, folder.name, name, '') for p in files if p.name[0] != '.']
    if not rows:
        raise UserError(f"'{root}' has no pictures in class folders: {root}/CLASS/PICTURE.")
    return pd.DataFrame(rows, columns=['item', 'label', 'split', 'group'])


def _rows_of_csv(path: Path) -> pd.DataFrame:
    """Read the rows of a CSV, whose paths are relative to its folder."""
    if not path.is_file():
        raise UserError(f"'{path}' is no folder, no CSV and no config:NAME.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column in ('path', 'label'):
        check(f"A column of '{path}'", column, choices=table.columns)
    for value in table.get('split', ()):
        check(f"A split of '{path}'", value, choices=SPLITS)
    columns = dict(item=[path.parent / p for p in table['path']], label=table['label'])
    split = table['split'].map(SPLITS) if 'split' in table else ''
    return pd.DataFrame(dict(columns, split=split, group=table.get('group', '')))


def _rows_of_config(cfg: Config) -> pd.DataFrame:
    """List a config's training and test data; val is often the test again, and is not read."""
    rows = []
    for split, settings in (('train', trained_dataset(cfg)), ('test', tested_dataset(cfg))):
        dataset = DATASETS.build(settings)
        names = dataset.metainfo.get('classes')
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            label = info.get('gt_label', info.get('label'))
            if not isinstance(label, (int, np.integer)):
                raise UserError(f'{settings.type} gives no single label: {label!r}.')
            rows.append(((dataset, i), str(names[label] if names else label), split, ''))
    return pd.DataFrame(rows, columns=['item', 'label', 'split', 'group'])


def _info(item: tuple[Any, int]) -> dict[str, Any]:
    dataset, index = item
    return dataset.get_data_info(index)


def _examine(item: Any) -> tuple[str, str]:
    """Return the hash of an item's content, and what is wrong with it.

    Contents, not sizes and times: a copy or a checkout keeps its features, and an edit within
    the clock's resolution is seen. 3,000 small files take a second.
    """
    sha = hashlib.sha256()
    if isinstance(item, Path):
        defect = find_defect(str(item), opencv=False)
        sha.update(item.read_bytes() if item.is_file() else b'')
        return sha.hexdigest(), defect or ''
    for key, value in sorted(_info(item).items()):
        if isinstance(value, np.ndarray):
            value = f'{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}'
        elif isinstance(value, str) and Path(value).is_file():
            value = hashlib.sha256(Path(value).read_bytes()).hexdigest()
        elif key == 'sample_idx':
            continue
        sha.update(f'{key}={value};'.encode())
    return sha.hexdigest(), ''


def _with_splits(rows: pd.DataFrame, name: str, seed: int) -> pd.DataFrame:
    """Return the rows to use, each with its split.

    Raises:
        UserError: See :func:`read_data`.
    """
    given = set(rows['split'])
    groups = rows['group'].where(rows['group'] != '', rows['digest'])
    if given == {''}:
        folds = _folds(rows['label'], groups, seed)
        rows['split'] = np.select([folds == 0, folds == 1], ['test', 'val'], 'train')
        if (rare := folds < 0).any():
            names = listing(sorted(rows['label'][rare].unique()))
            _warn(f"'{name}': left out, since of fewer than {FOLDS} pictures: {names}.")
            rows, groups = rows[~rare].reset_index(drop=True), groups[~rare].reset_index(drop=True)
    else:
        check('The splits given', 'train', choices=given)
        if 'test' not in given:
            rows['split'] = rows['split'].replace('val', 'test')
        check('The splits given', 'test', choices=set(rows['split']))
        _check_sides(rows, name)
        train = rows['split'] == 'train'
        if 'val' not in set(rows['split']):
            folds = _folds(rows['label'][train], groups[train], seed)
            rows.loc[folds.index[folds == 0], 'split'] = 'val'
    return _without_damaged(rows, name)


def _folds(labels: pd.Series, groups: pd.Series, seed: int) -> pd.Series:
    """Return each row's fold, 0 to 4, stratified; -1 in a class of fewer than five groups."""
    folds = pd.Series(-1, index=labels.index)
    kept = labels.index[groups.groupby(labels).transform('nunique') >= FOLDS]
    if len(kept):
        kind = StratifiedGroupKFold if groups[kept].duplicated().any() else StratifiedKFold
        parts = kind(FOLDS, shuffle=True, random_state=seed)
        for fold, (_, chosen) in enumerate(parts.split(kept, labels[kept], groups[kept])):
            folds[kept[chosen]] = fold
    return folds


def _check_sides(rows: pd.DataFrame, name: str) -> None:
    """Refuse a group on two sides of the given splits; warn of equal files on two sides."""
    sides = rows[rows['group'] != ''].groupby('group')['split'].nunique()
    if (sides > 1).any():
        raise UserError(f"'{name}': in several splits: {listing(list(sides.index[sides > 1]))}.")
    equal = int((rows.groupby('digest')['split'].nunique() > 1).sum())
    if equal:
        _warn(f"'{name}': {equal} pictures stand in several splits: scores are too high.")


def _without_damaged(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Leave damaged pictures of the training split out, and check what is left."""
    train, damaged = rows['split'] == 'train', rows['defect'] != ''
    report_damaged(name, [*zip(rows['item'][damaged], train[damaged], strict=True)])
    if unknown := sorted(set(rows['label']) - set(rows['label'][train & ~damaged])):
        raise UserError(f"'{name}': classes without a training picture: {listing(unknown)}.")
    rows = rows[~damaged].reset_index(drop=True)
    check(f"The number of classes in '{name}'", rows['label'].nunique(), least=2)
    return rows


def report_damaged(name: str, damaged: Sequence[tuple[Any, bool]]) -> None:
    """Warn of damaged pictures of the training split; refuse those of val and test.

    Args:
        name (str): Of the data.
        damaged (Sequence[tuple[Any, bool]]): Files, and whether they are for training.

    Raises:
        UserError: It names those of val and test.
    """
    if wrong := [item for item, is_trained in damaged if not is_trained]:
        raise UserError(
            f"'{name}': {len(wrong)} damaged pictures in val or test: {listing(wrong)}. "
            'Fix: repair or remove them.'
        )
    if damaged:
        names = listing([item for item, _ in damaged])
        _warn(f"'{name}': {len(damaged)} damaged pictures left out: {names}.")


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
