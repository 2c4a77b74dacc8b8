"""Lists labelled items as rows: of a folder of class folders, a CSV, or a config.

A row has an *item* (:mod:`lm4ve.study.pictures.items`), a *label*, a *split* ('train', 'val',
'test', or '' where splits are still to be made) and a *group* ('' for none).
"""

import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mmengine.config import Config
from mmengine.registry import DATASETS

from lm4ve.data.folder_listing import OTHER_ENDING, OUTSIDE, list_files
from lm4ve.data.suffixes import has_image_suffix
from lm4ve.errors import UserError, check, listing, require
from lm4ve.runner.config import read_config
from lm4ve.study.pictures.items import DatasetItem, Item, file_of
from lm4ve.tasks.base.tested import tested_loader
from lm4ve.text.annotation_files import read_rows

COLUMNS = ('item', 'label', 'split', 'group')
#: What ``--group-by`` calls the folder of a file.
PARENT = 'parent'
#: Data sets that give samples of another one several times.
_REPEATING = ('RepeatDataset', 'ClassBalancedDataset')
#: The name of a file that is left out, and the reason.
LeftOut = tuple[str, str]
#: What folders and CSV files call a split, in lower case -> its name here.
SPLIT_NAMES = {
    'train': 'train',
    'training': 'train',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'dev': 'val',
    'test': 'test',
    'testing': 'test',
}


def split_of(word: str) -> str | None:
    """Return the split that a folder or a cell of a CSV means, or None if it means none."""
    return SPLIT_NAMES.get(word.lower())


def list_rows(
    path: str, group_by: str | None = None
) -> tuple[pd.DataFrame, list[LeftOut]]:
    """List labelled items.

    Args:
        path (str): See :func:`lm4ve.study.pictures.data.read_data`.
        group_by (str, optional): See there.

    Returns:
        tuple: The rows, whose columns are :data:`COLUMNS`; and the files of a folder that
        are left out.

    Raises:
        UserError: There are none, or a row or a folder is wrong; the message names it.
    """
    left_out: list[LeftOut] = []
    if path.startswith('config:') or path.endswith('.py'):
        rows = _rows_of_config(read_config(path.removeprefix('config:')), group_by)
    elif Path(path).is_dir():
        require(
            group_by in (None, PARENT),
            f"--group-by {group_by} names a column, and '{path}' is a folder. "
            f'Fix: --group-by {PARENT}.',
        )
        rows, left_out = _rows_of_folder(Path(path))
    else:
        rows = _rows_of_csv(Path(path), group_by)
    if group_by == PARENT:
        rows['group'] = [_parent_of(item) for item in rows['item']]
    if rows.empty:
        raise UserError(
            f"'{path}' has no pictures. A folder needs them in folders of classes."
        )
    return rows, left_out


def _parent_of(item: Item) -> str:
    """Return the folder of an item's file; '' for an item without a file."""
    path = file_of(item)
    return '' if path is None else str(Path(path).parent)


# --------------------------------------------------------------------------- folders
def _rows_of_folder(root: Path) -> tuple[pd.DataFrame, list[LeftOut]]:
    """List the pictures of a folder of class folders, which may lie in folders of splits.

    Pictures outside of class folders and files of other endings are left out. A single
    folder 'train' is no split: the splits are still to be made.

    Returns:
        tuple: The rows, and what is left out.
    """
    listed = list_files(root, has_image_suffix)
    paths = [Path(path).parts for path in listed.files]

    splits = _find_splits(paths, root)
    class_depth = 1 if splits else 0
    has_only_train = set(splits.values()) == {'train'}
    rows = []
    for parts in paths:
        if len(parts) <= class_depth + 1:
            listed.leave_out(OUTSIDE, '/'.join(parts))
            continue
        split = ''
        if splits and not has_only_train:
            split = splits[parts[0]]
        label = parts[class_depth]
        _require_text(label, root)
        rows.append((root.joinpath(*parts), label, split, ''))
    unread = [Path(path).parts for path in listed.left_out.get(OTHER_ENDING, [])]
    _refuse_lost_classes(root, paths, unread, class_depth)
    left_out = []
    for reason, names in listed.left_out.items():
        left_out += [(name, reason) for name in names]
    return pd.DataFrame(rows, columns=COLUMNS), left_out


def _require_text(label: str, root: Path) -> None:
    """Refuse the name of a class that no report can hold.

    Raises:
        UserError: It has bytes that are not UTF-8, as names of folders may.
    """
    try:
        label.encode()
    except UnicodeEncodeError as e:
        raise UserError(
            f"'{root}': the class {ascii(label)} is not named in UTF-8. Fix: rename it."
        ) from e


def _refuse_lost_classes(
    root: Path,
    read: Sequence[tuple[str, ...]],
    unread: Sequence[tuple[str, ...]],
    class_depth: int,
) -> None:
    """Refuse a class folder that has files, but none with a picture's ending.

    The other classes alone would answer another question than the user's.

    Args:
        root (Path): The folder of the data.
        read, unread (Sequence[tuple[str, ...]]): The parts of the paths of pictures, and
            of files with another ending.
        class_depth (int): The number of folders above those of the classes.

    Raises:
        UserError: It names the folders.
    """
    depth = class_depth + 1
    classes_read = {parts[:depth] for parts in read}
    lost = set()
    for parts in unread:
        is_in_class = len(parts) > depth
        is_in_split = class_depth == 0 or split_of(parts[0]) is not None
        if is_in_class and is_in_split and parts[:depth] not in classes_read:
            lost.add('/'.join(parts[:depth]))
    if lost:
        raise UserError(
            f"'{root}' has classes without a picture that can be read: "
            f'{listing(sorted(lost))}. Fix: convert their files to JPEG or PNG, or move '
            'the folders away.'
        )


def _find_splits(paths: Sequence[tuple[str, ...]], root: Path) -> dict[str, str]:
    """Return the splits that the top folders are: folder -> split; empty if they are classes.

    They are splits if all have the name of one. A single folder with such a name may be
    a class: the pictures of trains lie in 'train'. Then they lie directly in it.

    Args:
        paths (Sequence[tuple[str, ...]]): The parts of the pictures' paths below the root.
        root (Path): The folder of the data, for the error.

    Raises:
        UserError: Some folders are splits and some are not.
    """
    splits: dict[str, str] = {}
    others = set()
    has_classes = False
    for parts in paths:
        if len(parts) == 1:
            continue  # beside the folders
        split = split_of(parts[0])
        if split is None:
            others.add(parts[0])
            continue
        splits[parts[0]] = split
        if len(parts) > 2:
            has_classes = True
    if splits and others and (has_classes or len(splits) > 1):
        raise UserError(
            f"'{root}' has folders that are no split ({listing(sorted(others))}) beside those "
            f'of splits ({listing(sorted(splits))}). Fix: move the former away; or, if all are '
            'classes, rename the latter.'
        )
    if others:
        return {}
    return splits


# ----------------------------------------------------------------------------- a CSV
def _rows_of_csv(path: Path, group_by: str | None) -> pd.DataFrame:
    """Read the rows of a CSV, whose paths are relative to its folder.

    All lines are read before an error, so that the message names each wrong one.

    Raises:
        UserError: The path is no CSV or TSV file; or a row has no path or label, an
            unknown split, a file that does not exist, or a file that another row gives
            another label.
    """
    if not path.is_file():
        raise UserError(
            f"'{path}' does not exist: neither a folder, nor a CSV, nor config:NAME."
        )
    check(f"The ending of '{path}'", path.suffix.lower(), choices=('.csv', '.tsv'))
    rows: list[tuple[Path, str, str | None, str]] = []
    mistakes: list[str] = []
    # Real path of a file -> the line and the label of its first row.
    first: dict[str, tuple[str, str]] = {}
    for line, row in read_rows(path, 'DATA'):
        needed = ['path', 'label']
        if group_by not in (None, PARENT):
            needed.append(str(group_by))
        for column in needed:
            _require_column(column, row, path)
        item = path.parent / row['path']
        mistake = _find_mistake(line, row, item)
        # One file may be named by several paths.
        real_path = os.path.realpath(item)
        first_line, first_label = first.setdefault(real_path, (line, row['label']))
        if mistake is None and first_label != row['label']:
            mistake = (
                f'{line} gives a file the label {row["label"]!r}, '
                f'{first_line} {first_label!r}'
            )
        if mistake is not None:
            mistakes.append(mistake)
            continue
        split: str | None = ''
        if 'split' in row:
            split = split_of(row['split'])
        rows.append((item, row['label'], split, row.get(group_by or 'group', '')))
    if mistakes:
        raise UserError(f"'{path}' cannot be used: {listing(mistakes)}.")
    return pd.DataFrame(rows, columns=COLUMNS)


def _require_column(column: str, row: Mapping[str, str], path: Path) -> None:
    """Refuse a CSV without a column.

    Args:
        column (str): The column.
        row (Mapping[str, str]): Column -> cell, of any of its rows.
        path (Path): The CSV, for the error.

    Raises:
        UserError: It names the columns that are there.
    """
    if column not in row:
        raise UserError(
            f"'{path}' has no column '{column}', only {listing(list(row), 10)}. "
            f"Fix: call it '{column}' in the first line."
        )


def _find_mistake(line: str, row: Mapping[str, str], item: Path) -> str | None:
    """Return what is wrong with a row of a CSV, for a message, or None.

    Args:
        line (str): The row's place in words, which the message begins with.
        row (Mapping[str, str]): Column -> cell.
        item (Path): The file that the row names.
    """
    if not row['path']:
        return f'{line} is a row without a path'
    if not row['label']:
        return f'{line} is a row without a label'
    if 'split' in row and split_of(row['split']) is None:
        names = ', '.join(SPLIT_NAMES)
        return f"{line}: the split '{row['split']}' is none of {names}"
    if not item.is_file():
        return f"{line}: '{row['path']}' does not exist, or is no file"
    return None


# -------------------------------------------------------------------------- a config
def _rows_of_config(cfg: Config, group_by: str | None) -> pd.DataFrame:
    """List the samples of a config's training and test data sets.

    Its validation data are not read, since they are often the test data again.
    """
    tested = tested_loader(cfg)
    trained = cfg.get('train_dataloader') or tested
    rows = []
    for loader, split in ((trained, 'train'), (tested, 'test')):
        for settings in _single_datasets(loader.dataset):
            rows += _rows_of_dataset(settings, split, group_by)
    return pd.DataFrame(rows, columns=COLUMNS)


def _single_datasets(settings: Any) -> list[Any]:
    """Return the data sets that a config's data set consists of.

    Several in one are listed, and what repeats samples is left out. Other wrappers stay,
    since they choose among samples, as mmpretrain's ``KFoldDataset`` does.

    Args:
        settings (ConfigDict): The config of the data set.
    """
    name = str(settings.type).rpartition('.')[2]
    if name in _REPEATING:
        return _single_datasets(settings.dataset)
    if name != 'ConcatDataset':
        return [settings]
    parts = []
    for part in settings.datasets:
        parts += _single_datasets(part)
    return parts


def _rows_of_dataset(
    settings: Any, split: str, group_by: str | None
) -> list[tuple[Any, ...]]:
    """List the samples of a data set as rows, which all belong to one split.

    A label is named by the data set's classes, or by its number if there are none.

    Args:
        settings (ConfigDict): The config of the data set.
        split (str): The split.
        group_by (str, optional): A field of the samples.

    Raises:
        UserError: A sample has no single label, or a label that is no class.
    """
    dataset = DATASETS.build(settings)
    names = dataset.metainfo.get('classes') or ()
    if len(set(names)) < len(names):
        # Names are not unique: ImageNet has two cranes.
        names = [f'{name} ({i})' for i, name in enumerate(names)]
    rows = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        label = _label_of(info, settings.type)
        field = f'The label of sample {index} of {settings.type}'
        if names:
            check(field, label, least=0, most=len(names) - 1)
            name = str(names[label])
        else:
            check(field, label, least=0)
            name = str(label)
        group = ''
        if group_by not in (None, PARENT):
            check('--group-by', group_by, choices=sorted(info))
            group = str(info[group_by])
        rows.append((DatasetItem(dataset, index), name, split, group))
    return rows


def _label_of(info: Mapping[str, Any], dataset: str) -> int:
    """Return the label of a data set's sample.

    Args:
        info (Mapping): The sample. Its label may be an integer of Python, NumPy or torch,
            also as an array without dimensions: mmpretrain's MNIST has such.
        dataset (str): The name of the data set's class, for the error.

    Raises:
        UserError: It has none, or several.
    """
    label = info.get('gt_label', info.get('label'))
    try:
        return operator.index(label)
    except TypeError as e:
        raise UserError(f'{dataset} gives no single label: {label!r}.') from e
