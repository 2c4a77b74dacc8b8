"""Lists of files with their labels, and names of classes: obvious mistakes are refused.

Lists for training and for tests are checked in the same way. A wrong label would be
another class for a loss or a metric, or "ignore", and give a wrong number in silence.
"""

import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import print_log

from lm4ve.errors import UserError, brief, listing
from lm4ve.files import decoded


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

    All mistakes are collected before the error is raised. A file may be listed several
    times with one label, and then has as many entries.

    Args:
        data (bytes): Its content, UTF-8.
        path (str): Its name, for the error.
        delimiter (str): What stands before the label. The last one counts: paths may
            hold it.
        has_labels (bool): Whether lines end with a label.
        classes (int, optional): The number of classes, where it is known.
        leads_outside (Callable): Whether a file lies outside of the data's folder, by
            its name.

    Raises:
        UserError: The list is no UTF-8 or names no file; lines have no label, a
            negative one or one beyond the classes, lead outside, or give a file two
            labels. The message names the list and the lines.
    """
    entries: list[ListEntry] = []
    mistakes: list[str] = []
    first_entries: dict[str, ListEntry] = {}
    for number, line in enumerate(lines_of(data, path), start=1):
        text = line.strip()
        if not text:
            continue
        entry = _parse(text, number, delimiter, has_labels)
        if entry is None:
            expected = 'path and label' if has_labels else 'path'
            mistakes.append(f'line {number} is no {expected}')
            continue
        # A file that is listed before must have the same label again.
        first = first_entries.setdefault(os.path.normpath(entry.name), entry)
        mistake = _find_mistake(entry, first, classes)
        if mistake is None and leads_outside(entry.name):
            mistake = 'leads outside of the folder of the data'
        if mistake is None:
            entries.append(entry)
        else:
            mistakes.append(f'line {number} {mistake}')
    if mistakes:
        raise UserError(
            f"dataset.ann_file='{path}' cannot be used: {listing(mistakes)}."
        )
    if not entries:
        raise UserError(f"dataset.ann_file='{path}' cannot be used: it is empty.")
    return entries


def lines_of(data: bytes, path: str | Path) -> list[str]:
    """Split a file of one entry a line, and warn if its last line may have been cut.

    Args:
        data (bytes): The file's content.
        path (str | Path): The file, for messages.

    Returns:
        list[str]: Its lines without their ends.

    Raises:
        UserError: It is not UTF-8.
    """
    text = decoded(data, path)
    warn_of_open_end(text, path)
    return text.splitlines()


def warn_of_open_end(text: str, path: str | Path) -> None:
    """Warn of a text of one entry a line whose last line has no line end.

    Editors leave it out. But if a copy ends after the 1 of a label 12, nothing else
    shows it.
    """
    text = text.rstrip(' \t')
    if text and not text.endswith(('\n', '\r')):
        print_log(
            f"The last line of '{path}' has no line end: '{brief(text.splitlines()[-1])}'. It is "
            'read; if the file was cut, copy it again.',
            logger='current',
            level=logging.WARNING,
        )


def _find_mistake(
    entry: ListEntry, first: ListEntry, classes: int | None
) -> str | None:
    """Return what is wrong with an entry's label, in words that follow the line, or None.

    Args:
        entry (ListEntry): The entry.
        first (ListEntry): The first entry of the same file, which is ``entry`` itself
            for a file that is not listed before.
        classes (int, optional): The number of classes, where it is known.
    """
    if entry.label < 0:
        return f'has the label {entry.label}; classes count from 0'
    if classes is not None and entry.label >= classes:
        return f'has the label {entry.label}, of {classes} classes'
    if first.label != entry.label:
        return (
            f"gives '{entry.name}' the label {entry.label}, line {first.line} the label "
            f'{first.label}'
        )
    return None


def _parse(
    text: str, number: int, delimiter: str, has_labels: bool
) -> ListEntry | None:
    """Return the entry of a line, or None if the line has no name or no label."""
    if not has_labels:
        return ListEntry(text, 0, number)
    name, _, label = text.rpartition(delimiter)
    name = name.rstrip(delimiter)
    is_number = re.fullmatch(r'-?\d{1,9}', label)
    if not name or not is_number:
        return None
    return ListEntry(name, int(label), number)


def refuse_lookalikes(names: Mapping[str, str], origin: str) -> None:
    """Refuse classes with names that look alike, since they are one class by mistake.

    Names look alike if they differ in blanks at their ends, in the Unicode form of
    their letters (NFC, NFD), or in the way to write a number (1, 1.0).

    Args:
        names (Mapping[str, str]): Name of each class -> where it stands first, for the
            error.
        origin (str): The file or folder.

    Raises:
        UserError: It names the pairs.
    """
    first_names: dict[str | float, str] = {}
    pairs = []
    for name, place in names.items():
        first = first_names.setdefault(_appearance(name), name)
        if first != name:
            pairs.append(f'{first!r} ({names[first]}) and {name!r} ({place})')
    if pairs:
        raise UserError(
            f"'{origin}' has classes whose names look alike: {listing(pairs, 3)}. "
            'Fix: write each class in one way.'
        )


def _appearance(name: str) -> str | float:
    """Return a name's number if it is one, else its normalized letters, to compare names by."""
    plain = unicodedata.normalize('NFC', name).strip()
    try:
        return float(plain)
    except ValueError:
        return plain


def refuse_other_order(
    classes: Sequence[str], folders: Sequence[str], root: str
) -> None:
    """Refuse names of classes that stand at the places of other folders.

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
    place_of_folder = {}
    for place, folder in enumerate(folders):
        place_of_folder[_spelling(folder)] = place
    moved = []
    for place, name in enumerate(classes):
        right_place = place_of_folder.get(_spelling(name), place)
        if right_place != place:
            moved.append(
                f'{name!r} stands at {place}, the folder {folders[right_place]!r} at '
                f'{right_place}'
            )
    if moved:
        raise UserError(
            f"dataset.classes names folders of '{root}' out of order: {listing(moved, 3)}. "
            f'Fix: the order of the sorted folders, {listing(folders, 8)}.'
        )


def _spelling(name: str) -> str:
    """Return a name without upper case, and with one blank for blanks and hyphens."""
    plain = unicodedata.normalize('NFKC', name)
    return re.sub(r'[\s_-]+', ' ', plain).strip().casefold()


def first_places(
    names: Iterable[str], describe: Callable[[int], str]
) -> dict[str, str]:
    """Return where each name occurs first, for :func:`refuse_lookalikes`.

    Args:
        names (Iterable[str]): Names in the order of their occurrence, with repetitions.
        describe (Callable): Describes the place of a name by its index.
    """
    places: dict[str, str] = {}
    for index, name in enumerate(names):
        if name not in places:
            places[name] = describe(index)
    return places
