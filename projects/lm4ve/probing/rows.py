"""Lists labelled items as rows: of a folder of class folders, a CSV, or a config.

A row has an *item* (:mod:`lm4ve.probing.items`), a *label*, a *split* ('train', 'val',
'test', or '' where splits are still to be made) and a *group* ('' for none).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from PIL import Image

from lm4ve.data.folder_listing import (
    OTHER_ENDING,
    OUTSIDE,
    count_endings,
    list_files,
)
from lm4ve.data.labels import first_places, refuse_lookalikes
from lm4ve.errors import UserError, check, listing
from lm4ve.probing.items import DatasetItem
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.batches import trained_dataset
from lm4ve.text.annotation_files import read_rows

COLUMNS = ('item', 'label', 'split', 'group')
#: Why a folder is left out.
_EMPTY = 'folder(s) without files'
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


def list_rows(path: str) -> pd.DataFrame:
    """List labelled items.

    Args:
        path (str): See :func:`lm4ve.probing.data.read_data`.

    Returns:
        pd.DataFrame: The columns are :data:`COLUMNS`.

    Raises:
        UserError: There are none, or a row or a folder is wrong; the message names it.
    """
    if path.startswith('config:') or path.endswith('.py'):
        rows = _rows_of_config(read_config(path.removeprefix('config:')))
    elif Path(path).is_dir():
        rows = _rows_of_folder(Path(path))
    else:
        rows = _rows_of_csv(Path(path))
    if rows.empty:
        raise UserError(
            f"'{path}' has no pictures. A folder needs them in folders of classes."
        )
    return rows


# --------------------------------------------------------------------------- folders
def _rows_of_folder(root: Path) -> pd.DataFrame:
    """List the pictures of a folder of class folders, which may lie in folders of splits.

    Pictures outside of class folders are left out with a warning, which counts files of
    other endings too. A single folder 'train' is no split: the splits are still to be
    made.
    """
    endings = set()
    for ending, format_name in Image.registered_extensions().items():
        if format_name in Image.OPEN:
            endings.add(ending)
    listed = list_files(root, lambda path: Path(path).suffix.lower() in endings)
    paths = [Path(path).parts for path in listed.files]

    top_folders = {parts[0] for parts in paths if len(parts) > 1}
    splits = {name: SPLIT_NAMES.get(name.lower()) for name in top_folders}
    has_splits = _are_splits(splits, root)
    class_depth = 1 if has_splits else 0
    rows = []
    for parts in paths:
        if len(parts) <= class_depth + 1:
            listed.leave_out(OUTSIDE, '/'.join(parts))
            continue
        split: str | None = ''
        if has_splits and len(splits) > 1:
            split = splits[parts[0]]
        label = parts[class_depth]
        _require_text(label, root)
        rows.append((root.joinpath(*parts), label, split, ''))
    unread = [Path(path).parts for path in listed.left_out.get(OTHER_ENDING, [])]
    _refuse_lost_classes(root, paths, unread, class_depth)
    folders_with_files = {parts[0] for parts in paths + unread}
    for folder in sorted(listed.folders - folders_with_files):
        listed.leave_out(_EMPTY, folder)
    if listed.left_out:
        MMLogger.get_current_instance().warning(
            f"'{root}': left out: {listed.describe_left_out()}."
        )
    return pd.DataFrame(rows, columns=COLUMNS)


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
        UserError: It names the folders, and the endings of their files.
    """
    parts_of_class = class_depth + 1
    classes_read = {parts[:parts_of_class] for parts in read}
    lost: dict[str, list[str]] = {}
    for parts in unread:
        if len(parts) <= parts_of_class:
            continue  # beside the folders of classes
        if class_depth and parts[0].lower() not in SPLIT_NAMES:
            continue  # beside the folders of splits
        if parts[:parts_of_class] not in classes_read:
            folder = '/'.join(parts[:parts_of_class])
            lost.setdefault(folder, []).append(parts[-1])
    if not lost:
        return
    described = [f'{folder} ({count_endings(names)})' for folder, names in lost.items()]
    raise UserError(
        f"'{root}' has classes without a picture that can be read: {listing(described)}. "
        'Fix: convert their files to JPEG or PNG, or move the folders away.'
    )


def _are_splits(splits: Mapping[str, str | None], root: Path) -> bool:
    """Return whether the top folders are splits; else they are classes.

    They are splits if all have the name of one and 'train' is among them.

    Args:
        splits (Mapping[str, str | None]): Folder -> the split that its name means, or
            None.
        root (Path): The folder that they lie in, for the error.

    Raises:
        UserError: Some are splits and some are not.
    """
    known = set(splits.values()) - {None}
    others = sorted(name for name, split in splits.items() if split is None)
    if 'train' not in known:
        return False
    if others and len(known) > 1:  # 'train' alone may be a class
        raise UserError(
            f"'{root}' has folders that are no split beside those that are: {listing(others)}."
        )
    return not others


# ----------------------------------------------------------------------------- a CSV
def _rows_of_csv(path: Path) -> pd.DataFrame:
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
    rows: list[tuple[Path, str, str, str]] = []
    lines: list[str] = []
    mistakes: list[str] = []
    # Real path of a file -> the line and the label of its first row.
    first: dict[str, tuple[str, str]] = {}
    for line, row in read_rows(path, 'DATA'):
        for column in ('path', 'label'):
            check(f"A column of '{path}'", column, choices=row)
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
        split = ''
        if 'split' in row:
            split = SPLIT_NAMES[row['split']]
        rows.append((item, row['label'], split, row.get('group', '')))
        lines.append(line)
    if mistakes:
        raise UserError(f"'{path}' cannot be used: {listing(mistakes)}.")
    table = pd.DataFrame(rows, columns=COLUMNS)
    refuse_lookalikes(first_places(table['label'], lines.__getitem__), str(path))
    return table


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
    if 'split' in row and row['split'] not in SPLIT_NAMES:
        names = ', '.join(SPLIT_NAMES)
        return f"{line}: the split '{row['split']}' is none of {names}"
    if not item.is_file():
        return f"{line}: '{row['path']}' does not exist, or is no file"
    return None


# -------------------------------------------------------------------------- a config
def _rows_of_config(cfg: Config) -> pd.DataFrame:
    """List the samples of a config's training and test data sets.

    Its validation data are not read, since they are often the test data again.
    """
    rows = _rows_of_dataset(trained_dataset(cfg), 'train')
    rows += _rows_of_dataset(tested_dataset(cfg), 'test')
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows_of_dataset(settings: Any, split: str) -> list[tuple[Any, ...]]:
    """List the samples of a data set as rows, which all belong to one split.

    A label is named by the data set's classes, or by its number if there are none.

    Args:
        settings (ConfigDict): The config of the data set.
        split (str): The split.

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
        label = info.get('gt_label', info.get('label'))
        if not isinstance(label, (int, np.integer)):
            raise UserError(f'{settings.type} gives no single label: {label!r}.')
        field = f'The label of sample {index} of {settings.type}'
        if names:
            check(field, label, least=0, most=len(names) - 1)
            name = str(names[label])
        else:
            check(field, label, least=0)
            name = str(label)
        rows.append((DatasetItem(dataset, index), name, split, ''))
    return rows
