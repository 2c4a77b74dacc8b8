"""Converts the video lists of other projects to mmaction2's: one ``path label`` per line.

Something-Something V2 comes with JSON files of its own; VideoMAE reads headerless CSV files, with
a space between path and label and no frame count.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lm4ve.errors import UserError
from lm4ve.files import whole_lines, write_text

Entries = list[tuple[str, int]]


def read_ssv2(labels: str | Path, split: str | Path, extension: str = 'webm') -> Entries:
    """Read Something-Something V2's official files.

    Args:
        labels (str | Path): ``something-something-v2-labels.json`` (or ``labels.json``):
            template -> number as a string.
        split (str | Path): ``...-train.json`` or ``...-validation.json``: a list with ``id`` and
            ``template``, in whose text the placeholders are in brackets; or
            ``...-test-answers.csv``, ``id;template``.
        extension (str): The ending of the video files, which are named by their id.

    Returns:
        list[tuple[str, int]]: File name and label.

    Raises:
        UserError: The labels are not numbered from 0.
        KeyError: A template is missing or unknown: the JSON file of the test set has none.
    """
    numbers = {k: int(v) for k, v in json.loads(Path(labels).read_bytes()).items()}
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise UserError(f"'{labels}': expected the numbers 0 to {len(numbers) - 1}, each once.")
    split = Path(split)
    if split.suffix == '.csv':
        samples = [line.split(';', 1) for line in whole_lines(split.read_bytes(), split) if line]
    else:
        samples = [(s['id'], s['template']) for s in json.loads(split.read_bytes())]
    return [
        (f'{identity}.{extension}', numbers[template.strip().replace('[', '').replace(']', '')])
        for identity, template in samples
    ]


def read_videomae(path: str | Path, root: str = '') -> Entries:
    """Read a ``train.csv``, ``val.csv`` or ``test.csv`` of VideoMAE.

    Args:
        path (str | Path): Headerless; path, white space, label. Paths may hold spaces.
        root (str): A leading part of the paths to remove, which is ``data_prefix`` in mmaction2.

    Returns:
        list[tuple[str, int]]: Path and label.

    Raises:
        ValueError: A line has another form, or a path is not below ``root``.
    """
    entries = []
    for line in whole_lines(Path(path).read_bytes(), path):
        name, label = line.rsplit(maxsplit=1)
        if root:
            name = str(PurePosixPath(name).relative_to(root))
        entries.append((name.strip(), int(label)))
    return entries


def write_list(entries: Sequence[tuple[str, int]], path: str | Path) -> None:
    """Write mmaction2's list."""
    write_text(''.join(f'{name} {label}\n' for name, label in entries), path)
