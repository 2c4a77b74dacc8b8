"""Convert the video lists of other projects to mmaction2's: one ``path label`` a line.

Something-Something V2 comes with JSON files of its own; VideoMAE reads
headerless CSV files, with a space between path and label and no frame count.
"""

import json
import posixpath
from collections.abc import Sequence
from pathlib import Path

from lm4ve.errors import UserError, brief
from lm4ve.files import whole_lines, write_text

Entries = list[tuple[str, int]]


def read_ssv2(labels: str | Path, split: str | Path, extension: str = 'webm') -> Entries:
    """Read Something-Something V2's official files.

    Args:
        labels (str | Path): ``something-something-v2-labels.json`` (or
            ``labels.json``): template -> number as a string.
        split (str | Path): ``...-train.json`` or ``...-validation.json``: a
            list with ``id`` and ``template``, in whose text the placeholders
            are in brackets; or ``...-test-answers.csv``, ``id;template``.
        extension (str): The ending of the video files, which are named by their id.

    Returns:
        list[tuple[str, int]]: File name and label.

    Raises:
        UserError: A file is missing or otherwise, or a template is unknown.
    """
    numbers = _numbers(labels)
    split = Path(split)
    if split.suffix == '.csv':
        samples = [line.split(';', 1) for line in _lines(split) if line.strip()]
    else:
        samples = [
            (s.get('id'), s.get('template')) if isinstance(s, dict) else (None, None)
            for s in _json(split, list)
        ]
    entries, wrong = [], []
    for sample in samples:
        identity, template = (*sample, None)[:2]
        template = str(template).strip().replace('[', '').replace(']', '')
        if not identity or template not in numbers:
            wrong.append(f"{brief(identity)}: '{brief(template)}'")
        else:
            entries.append((f'{identity}.{extension}', numbers[template]))
    if wrong:
        raise UserError(
            f"'{split}' has {len(wrong)} of {len(samples)} samples without an "
            f"id or whose template '{labels}' does not know: "
            f'{"; ".join(wrong[:5])}. Fix: the test set has no templates '
            '(give its answers, a CSV file); otherwise fetch both files again.'
        )
    return entries


def _numbers(path: str | Path) -> dict[str, int]:
    labels = _json(path, dict)
    try:
        numbers = {str(k): int(v) for k, v in labels.items()}
    except (TypeError, ValueError):
        numbers = {}
    if sorted(numbers.values()) != list(range(len(labels))):
        raise UserError(
            f"'{path}': expected templates with the numbers 0 to "
            f'{len(labels) - 1}, each once. Fix: give the official labels file.'
        )
    return numbers


def read_videomae(path: str | Path, root: str = '') -> Entries:
    """Read a ``train.csv``, ``val.csv`` or ``test.csv`` that VideoMAE reads.

    Args:
        path (str | Path): Headerless; path, white space, label. Paths may hold
            spaces.
        root (str): A leading part of the paths that is taken off, since
            mmaction2 has it in ``data_prefix``.

    Returns:
        list[tuple[str, int]]: File name and label.

    Raises:
        UserError: A line is otherwise, or a path does not begin with ``root``.
    """
    entries, wrong = [], []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().replace('\t', ' ').rpartition(' ')
        name = name.strip()
        outside = root and not name.startswith(root.rstrip('/') + '/')
        if not name or not label.isdecimal() or outside:
            wrong.append(f"line {number} ('{brief(line.strip())}')")
            continue
        if root:
            name = posixpath.relpath(name, root)
        entries.append((name, int(label)))
    if wrong:
        raise UserError(
            f"'{path}' has {len(wrong)} line(s) that are no path"
            f'{f" below {root!r}" if root else ""} and label: '
            f'{"; ".join(wrong[:5])}. Expected one "path label" a line.'
        )
    return entries


def write_list(entries: Sequence[tuple[str, int]], path: str | Path) -> None:
    """Write mmaction2's list.

    Raises:
        UserError: There is nothing to write.
    """
    if not entries:
        raise UserError(f"There is no video to write to '{path}'. Fix: check the source.")
    text = ''.join(f'{name} {label}\n' for name, label in entries)
    write_text(text, path)


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as e:
        raise UserError(f"'{path}' does not exist. Fix: correct the path.") from e


def _lines(path: str | Path) -> list[str]:
    return whole_lines(_bytes(path), path)


def _json(path: str | Path, kind: type):
    try:
        content = json.loads(_bytes(path))
    except (ValueError, RecursionError) as e:
        raise UserError(
            f"'{path}' is no JSON file ({type(e).__name__}). Fix: fetch it again."
        ) from e
    if not isinstance(content, kind):
        raise UserError(f"'{path}' holds a {type(content).__name__}, expected a {kind.__name__}.")
    return content
