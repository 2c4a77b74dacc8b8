"""Labelled data of a user: a folder of class folders, a CSV, or the data sets of a config.

Splits are fixed before anything is trained. A file that stands on both sides of a split
makes a score too high, so that files of equal content count as one where splits are
made here.
"""

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mmengine import fileio
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from lm4ve.data.folder_listing import OUTSIDE, list_files
from lm4ve.data.image_files import decode_pixels, find_defect, open_image, shows_through
from lm4ve.data.labels import first_places, refuse_lookalikes
from lm4ve.data.shards import PREFIX
from lm4ve.errors import UserError, check, listing
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.batches import trained_dataset
from lm4ve.text.annotation_files import read_rows

#: What folders and CSV files call a split, in lower case -> its name here.
SPLITS = {
    **dict.fromkeys(['train', 'training'], 'train'),
    **dict.fromkeys(['val', 'valid', 'validation', 'dev'], 'val'),
    **dict.fromkeys(['test', 'testing'], 'test'),
}
#: A fifth of the data is for tests, a fifth for choosing the rate, the rest for
#: training.
FOLDS = 5


class DamagedPictureError(UserError):
    """A picture cannot be decoded."""


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
        items (Sequence): Files, or pairs of a data set and an index in it.
    """

    name: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    classes: tuple[str, ...]
    fingerprint: str
    items: Sequence[Any]

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
        dataset, number = item
        info = dataset.get_data_info(number)
        if 'img' in info:
            pixels = info['img']
            if pixels.ndim == 3 and not holds_rgb(type(dataset).__name__):
                pixels = pixels[..., ::-1]  # mmcv's order is BGR
            return Image.fromarray(pixels).convert('RGB')
        return read_picture(info['img_path']) if 'img_path' in info else info

    def without_damaged(
        self, indices: np.ndarray, defects: Mapping[int, str] | None = None
    ) -> 'ProbeData':
        """Return the data whose training split lacks damaged pictures; a warning names them.

        Args:
            indices (np.ndarray): Those pictures.
            defects (Mapping[int, str], optional): What is wrong with each, where it is
                known.

        Raises:
            UserError: One is of val or test, or a class has no other training picture.
        """
        lost = {name: np.intersect1d(indices, own) for name, own in self.splits.items()}
        known = defects or {}
        named = {
            i: f'{self.items[i]} {known.get(i, "cannot be decoded")}' for i in indices
        }
        wrong = [named[i] for i in (*lost['val'], *lost['test'])]
        if wrong:
            raise UserError(
                f"'{self.name}': {len(wrong)} damaged picture(s) in val or test: {listing(wrong)}. "
                'Fix: repair or remove them.'
            )
        left = [named[i] for i in lost['train']]
        if left:
            _warn(
                f"'{self.name}': {len(left)} damaged picture(s) left out: {listing(left)}."
            )
        train = np.setdiff1d(self.splits['train'], indices)
        if unknown := sorted({*range(len(self.classes))} - {*self.labels[train]}):
            names = listing([self.classes[i] for i in unknown])
            raise UserError(
                f"'{self.name}': classes without a training picture: {names}."
            )
        return replace(self, splits=dict(self.splits, train=train))


def holds_rgb(dataset: str) -> bool:
    """Return whether a class of data sets gives arrays in RGB, as those of CIFAR alone do."""
    return dataset.rpartition('.')[2].startswith('CIFAR')


def read_picture(path: str | Path) -> Image.Image:
    """Read a picture of any format of :func:`open_image`, in 8-bit RGB.

    As the configs do: turned upright by its EXIF tag, gray repeated, CMYK converted, 16
    bits cut to their upper 8, transparency dropped (:func:`decode_pixels`).

    Raises:
        DamagedPictureError: It cannot be decoded, or has pixels of 32 bits.
        OSError: The file cannot be read, which may pass.
    """
    data = fileio.get(str(path))
    try:
        with open_image(io.BytesIO(data)) as file:
            picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith('I;16'):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.mode in ('I', 'F'):
            raise OSError('pixels of 32 bits')
        pixels = decode_pixels(data) if picture.has_transparency_data else None
        if pixels is not None:
            return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
        return picture.convert('RGB')
    except MemoryError:
        raise
    except Exception as e:  # Pillow's decoders raise anything
        raise DamagedPictureError(
            f"The picture '{path}' cannot be decoded ({e})."
        ) from e


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
            splits
        are made here, classes of fewer than five pictures. Warnings name both.

    Raises:
        UserError: There are no labelled pictures or fewer than two classes, a picture
            of val or test is damaged, a group or a class stands on the wrong side.
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
    if limit is not None:
        check('--limit', limit, least=1)
        share, least = min(limit / len(rows), 1.0), 1 if any(rows['split']) else FOLDS
        parts = [
            own.sample(
                max(round(share * len(own)), min(least, len(own))), random_state=seed
            )
            for _, own in rows.groupby(['label', 'split'])
        ]
        rows = pd.concat(parts).sort_index()
    with ThreadPoolExecutor() as pool:
        rows['digest'] = [*pool.map(_hasher(), rows['item'])]
        rows['defect'] = [*pool.map(_defect, rows['item'])]
        rows['is_transparent'] = [*pool.map(_is_transparent, rows['item'])]
    rows = _with_splits(rows.reset_index(drop=True), path, seed).reset_index(drop=True)
    labels, classes = pd.factorize(rows['label'], sort=True)
    check(f"The number of classes in '{path}'", len(classes), least=2)
    splits = {
        name: np.flatnonzero(rows['split'] == name) for name in ('train', 'val', 'test')
    }
    for name, indices in splits.items():
        least = 1 + (name == 'test')  # a spread needs two
        check(
            f"The number of pictures for {name} in '{path}'", len(indices), least=least
        )
    facts = rows[['digest', 'label', 'split']].to_json()
    transparent = rows['item'][rows['is_transparent']].tolist()
    if transparent:
        facts += 'transparency dropped'  # it became white before: other tokens of equal files
        _warn(
            f"'{path}': {len(transparent)} picture(s) are transparent in part: the color that is "
            f'stored under it counts, which is often black ({listing(_names(transparent), 3)}). '
            'Fix: lay them on one color.'
        )
    fingerprint = hashlib.sha256(facts.encode()).hexdigest()
    data = ProbeData(
        path, labels, splits, tuple(classes), fingerprint, rows['item'].tolist()
    )
    defects = rows['defect'].dropna().to_dict()
    return data.without_damaged(np.array([*defects], int), defects)


def _rows_of_folder(root: Path) -> pd.DataFrame:
    """List the pictures of class folders; a row has item, label, split and group."""
    read = {
        end for end, name in Image.registered_extensions().items() if name in Image.OPEN
    }
    found = list_files(root, lambda path: Path(path).suffix.lower() in read)
    paths = [Path(path).parts for path in found.files]
    splits = {
        parts[0]: SPLITS.get(parts[0].lower()) for parts in paths if len(parts) > 1
    }
    known = {*splits.values()} - {None}
    if {'train'} < known and None in splits.values():  # 'train' alone may be a class
        others = listing(
            sorted(name for name, split in splits.items() if split is None)
        )
        raise UserError(
            f"'{root}' has folders that are no split beside those that are: {others}."
        )
    are_splits = 'train' in known and None not in splits.values()
    class_depth = 1 if are_splits else 0
    rows = []
    for parts in paths:
        if len(parts) <= class_depth + 1:
            found.leave_out(OUTSIDE, '/'.join(parts))
            continue
        split = splits[parts[0]] if are_splits and len(splits) > 1 else ''
        rows.append((root.joinpath(*parts), parts[class_depth], split, ''))
    if found.left_out:
        _warn(f"Of the files in '{root}' {found.describe_left_out()}.")
    return pd.DataFrame(rows, columns=['item', 'label', 'split', 'group'])


def _rows_of_csv(path: Path) -> pd.DataFrame:
    """Read the rows of a CSV, whose paths are relative to its folder.

    Raises:
        UserError: It is no CSV; rows have no path or label, an unknown split, a file
            that does not exist, or a file that has another label before. The message
            names the lines.
    """
    if not path.is_file():
        raise UserError(
            f"'{path}' does not exist: neither a folder, nor a CSV, nor config:NAME."
        )
    check(f"The ending of '{path}'", path.suffix.lower(), choices=('.csv', '.tsv'))
    rows: list[tuple[Path, str, str, str]] = []
    lines: list[str] = []
    wrong: list[str] = []
    first: dict[str, tuple[str, str]] = {}
    for line, row in read_rows(path, 'DATA'):
        for column in ('path', 'label'):
            check(f"A column of '{path}'", column, choices=row)
        item, label, split = path.parent / row['path'], row['label'], row.get('split')
        before, known = first.setdefault(os.path.realpath(item), (line, label))
        if not row['path'] or not label:
            wrong.append(
                f'{line} is a row without a {"label" if row["path"] else "path"}'
            )
        elif split is not None and split not in SPLITS:
            wrong.append(f"{line}: the split '{split}' is none of {', '.join(SPLITS)}")
        elif not item.is_file():
            wrong.append(f"{line}: '{row['path']}' does not exist, or is no file")
        elif known != label:
            wrong.append(f'{line} gives a file the label {label!r}, {before} {known!r}')
        else:
            rows.append(
                (item, label, SPLITS[split] if split else '', row.get('group', ''))
            )
            lines.append(line)
    if wrong:
        raise UserError(f"'{path}' cannot be used: {listing(wrong)}.")
    table = pd.DataFrame(rows, columns=['item', 'label', 'split', 'group'])
    refuse_lookalikes(first_places(table['label'], lines.__getitem__), str(path))
    return table


def _rows_of_config(cfg: Config) -> pd.DataFrame:
    """List a config's training and test data; val is often the test again, and is not read."""
    rows = []
    for split, settings in (
        ('train', trained_dataset(cfg)),
        ('test', tested_dataset(cfg)),
    ):
        dataset = DATASETS.build(settings)
        names = dataset.metainfo.get('classes') or ()
        if len({*names}) < len(names):  # as ImageNet's two cranes
            names = [f'{name} ({i})' for i, name in enumerate(names)]
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            label = info.get('gt_label', info.get('label'))
            if not isinstance(label, (int, np.integer)):
                raise UserError(f'{settings.type} gives no single label: {label!r}.')
            field = f'The label of sample {i} of {settings.type}'
            check(field, label, least=0, most=len(names) - 1 if names else None)
            rows.append(
                ((dataset, i), str(names[label] if names else label), split, '')
            )
    return pd.DataFrame(rows, columns=['item', 'label', 'split', 'group'])


def _hasher() -> Callable[[Any], str]:
    """Return a function of an item that hashes all that it consists of.

    Contents, not sizes and times: a copy or a checkout keeps its features, and an edit
    within the clock's resolution is seen. 3,000 small files take a second.
    """

    def sha(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    @cache  # the rows of a data set may lie in one file
    def of_text(value: str) -> str:
        is_file = value.startswith(f'{PREFIX}://') or Path(value).is_file()
        return sha(fileio.get(value) if is_file else repr(value).encode())

    def of_value(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return sha(f'{value.dtype}{value.shape}'.encode() + value.tobytes())
        return of_text(value) if isinstance(value, str) else sha(repr(value).encode())

    def of_item(item: Any) -> str:
        if isinstance(item, Path):
            return (
                sha(item.read_bytes())
                if item.is_file()
                else sha(repr(str(item)).encode())
            )
        info = item[0].get_data_info(item[1])
        return ''.join(of_value(info[k]) for k in sorted(info) if k != 'sample_idx')

    return of_item


def _defect(item: Any) -> str | None:
    return find_defect(str(item), opencv=False) if isinstance(item, Path) else None


def _is_transparent(item: Any) -> bool:
    path = _path_of(item)
    return path is not None and shows_through(path)


def _path_of(item: Any) -> str | None:
    """Return the file of a picture, or None where there is none."""
    if isinstance(item, Path):
        return str(item) if item.is_file() else None
    path = item[0].get_data_info(item[1]).get('img_path')
    is_there = isinstance(path, str) and (
        path.startswith(f'{PREFIX}://') or Path(path).is_file()
    )
    return path if is_there else None


def _names(items: Sequence[Any]) -> list[str | None]:
    return [_path_of(item) for item in items]


def _with_splits(rows: pd.DataFrame, name: str, seed: int) -> pd.DataFrame:
    """Return the rows to use, each with its split.

    Raises:
        UserError: See :func:`read_data`.
    """
    groups = _joined(
        rows['group'].where(rows['group'] != '', rows['digest']), rows['digest']
    )
    given = set(rows['split'])
    if given == {''}:
        folds = _folds(rows['label'], groups, seed)
        rows['split'] = folds.map({0: 'test', 1: 'val'}).fillna('train')
        if rare := sorted(set(rows['label'][folds < 0])):
            _warn(
                f"'{name}': left out, since of fewer than {FOLDS} pictures: {listing(rare)}."
            )
        return rows[folds >= 0]
    if 'test' not in given:
        rows['split'] = rows['split'].replace('val', 'test')
    for needed in ('train', 'test'):
        check(f"The splits of '{name}'", needed, choices=set(rows['split']))
    shared = {}
    for key in ('group', 'digest'):
        sides = rows[rows[key] != ''].groupby(key)['split'].nunique()
        shared[key] = sorted(sides.index[sides > 1])
    if wrong := shared['group']:
        raise UserError(f"'{name}': groups in several splits: {listing(wrong)}.")
    if count := len(shared['digest']):
        _warn(
            f"'{name}': {count} equal pictures in several splits; scores are too high."
        )
    if 'val' not in set(rows['split']):
        train = rows['split'] == 'train'
        folds = _folds(rows['label'][train], groups[train], seed)
        chosen = groups[folds.index[folds == 0]]
        rows.loc[train & groups.isin(chosen), 'split'] = 'val'
    return rows


def _joined(groups: pd.Series, digests: pd.Series) -> pd.Series:
    """Return groups of which those that share an equal file are one."""
    i, j = pd.factorize(groups)[0], pd.factorize(digests)[0] + len(groups)
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(2 * len(i),) * 2)
    return groups.groupby(connected_components(graph, directed=False)[1][i]).transform(
        'min'
    )


def _folds(labels: pd.Series, groups: pd.Series, seed: int) -> pd.Series:
    """Return each row's fold, 0 to 4, stratified; -1 in a class of fewer than five groups."""
    folds = pd.Series(-1, index=labels.index)
    kept = labels.index[groups.groupby(labels).transform('nunique') >= FOLDS]
    if len(kept):
        cut = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split
        for fold, (_, chosen) in enumerate(cut(kept, labels[kept], groups[kept])):
            folds[kept[chosen]] = fold
    return folds


def _warn(text: str) -> None:
    MMLogger.get_current_instance().warning(text)
