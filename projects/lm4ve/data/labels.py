"""Lists with a label a line, and names of classes: what cannot be meant is refused.

A list is checked alike for training and for tests, since a label that a loss or a
metric takes for another class, or for "ignore", gives a wrong number in silence.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lm4ve.errors import UserError, listing
from lm4ve.files import whole_lines


@dataclass(frozen=True)
class ListEntry:
    """A line of a list.

    Attributes:
        name (str): The file as the list names it.
        label (int): The class, from 0; 0 in a list without labels.
        line (int): The line's number, from 1.
    """

    name: str
    label: int
    line: int


def read_list(
    data: bytes,
    path: str,
    *,
    delimiter: str = ' ',
    has_labels: bool = True,
    classes: int | None = None,
    leads_outside: Callable[[str], bool] = lambda name: False,
) -> list[ListEntry]:
    """Read a list with a file, and perhaps its label, a line; blank lines are skipped.

    Args:
        data (bytes): Its content, UTF-8.
        path (str): Its name, for the error.
        delimiter (str): What stands before the label. The last one counts: paths may
            hold it.
        has_labels (bool): Whether lines end with a label.
        classes (int, optional): The number of classes, where it is known.
        leads_outside (Callable): Says of a file whether it lies outside of the data's
            folder.

    Raises:
        UserError: The list is cut, is no UTF-8 or names no file; lines have no label, a
            negative one or one beyond the classes, lead outside, or give a file two
            labels. The message names the list and the lines.
    """
    entries: list[ListEntry] = []
    wrong: list[str] = []
    first: dict[str, ListEntry] = {}
    for number, text in enumerate(whole_lines(data, path), start=1):
        if not text.strip():
            continue
        entry = _parse(text.strip(), number, delimiter, has_labels)
        if entry is None:
            wrong.append(
                f'line {number} is no path{" and label" if has_labels else ""}'
            )
            continue
        before = first.setdefault(os.path.normpath(entry.name), entry)
        if entry.label < 0:
            wrong.append(
                f'line {number} has the label {entry.label}; classes count from 0'
            )
        elif classes is not None and entry.label >= classes:
            wrong.append(
                f'line {number} has the label {entry.label}, of {classes} classes'
            )
        elif before.label != entry.label:
            what = f"line {number} gives '{entry.name}' the label {entry.label}"
            wrong.append(f'{what}, line {before.line} the label {before.label}')
        elif leads_outside(entry.name):
            wrong.append(f'line {number} leads outside of the folder of the data')
        else:
            entries.append(entry)
    if wrong:
        raise UserError(f"dataset.ann_file='{path}' cannot be used: {listing(wrong)}.")
    if not entries:
        raise UserError(f"dataset.ann_file='{path}' cannot be used: it is empty.")
    return entries


def _parse(
    text: str, number: int, delimiter: str, has_labels: bool
) -> ListEntry | None:
    if not has_labels:
        return ListEntry(text, 0, number)
    name, _, label = text.rpartition(delimiter)
    name = name.rstrip(delimiter)
    if not name or not re.fullmatch(r'-?\d{1,9}', label):
        return None
    return ListEntry(name, int(label), number)


def refuse_lookalikes(names: Mapping[str, str], origin: str) -> None:
    """Raise an error if classes have names that look alike, since they are one class by mistake.

    Names look alike if they differ in blanks at their ends, in the Unicode form of
    their letters (NFC, NFD), or in the way to write a number (1, 1.0).

    Args:
        names (Mapping[str, str]): Name of each class -> where it stands first, for the
            error.
        origin (str): The file or folder.

    Raises:
        UserError: It names the pairs.
    """
    first: dict[str | float, str] = {}
    pairs = []
    for name, place in names.items():
        other = first.setdefault(_appearance(name), name)
        if other != name:
            pairs.append(f'{other!r} ({names[other]}) and {name!r} ({place})')
    if pairs:
        raise UserError(
            f"'{origin}' has classes whose names look alike: {listing(pairs, 3)}. "
            'Fix: write each class in one way.'
        )


def _appearance(name: str) -> str | float:
    plain = unicodedata.normalize('NFC', name).strip()
    try:
        return float(plain)
    except ValueError:
        return plain


def refuse_other_order(
    classes: Sequence[str], folders: Sequence[str], root: str
) -> None:
    """Raise an error if names of classes stand at the places of other folders.

    Labels count the sorted folders, whatever the order of the names. Names that are
    none of the folders' are for display, as 'tench' for n01440764. A name counts as a
    folder's also where upper and lower case or blanks differ.

    Args:
        classes (Sequence[str]): Their names, by label.
        folders (Sequence[str]): The sorted folders.
        root (str): The folder of the folders, for the error.

    Raises:
        UserError: It names the classes.
    """
    places = {_spelling(folder): place for place, folder in enumerate(folders)}
    moved = [
        f'{name!r} stands at {place}, the folder {folders[places[_spelling(name)]]!r} at '
        f'{places[_spelling(name)]}'
        for place, name in enumerate(classes)
        if places.get(_spelling(name), place) != place
    ]
    if moved:
        raise UserError(
            f"dataset.classes names folders of '{root}' out of order: {listing(moved, 3)}. "
            f'Fix: the order of the sorted folders, {listing(folders, 8)}.'
        )


def _spelling(name: str) -> str:
    return (
        re.sub(r'[\s_-]+', ' ', unicodedata.normalize('NFKC', name)).strip().casefold()
    )


def first_places(names: Iterable[str], place: Callable[[int], str]) -> dict[str, str]:
    """Return where each name occurs first, as :func:`refuse_lookalikes` takes it.

    Args:
        names (Iterable[str]): Names in the order of their occurrence, with repetitions.
        place (Callable): Describes the place of a name by its index.
    """
    found: dict[str, str] = {}
    for index, name in enumerate(names):
        if name not in found:
            found[name] = place(index)
    return found
