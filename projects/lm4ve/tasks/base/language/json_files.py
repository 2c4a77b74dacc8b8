"""Read JSON, JSON lines and CSV; what is wrong with a file is one message.

Nothing is executed: a pickle in the place of JSON is named as one and not opened.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm4ve.errors import UserError, listing
from lm4ve.files import check_end

_AGAIN = 'Fix: fetch or write the file again.'
#: What files begin with that are named like text and hold none.
_NOT_TEXT = (
    (b'\x80', 'a pickle, which could run code when it is read'),
    (b'PK\x03\x04', 'a zip archive'),
    (b'\x1f\x8b', 'a gzip archive'),
)
_KINDS = {dict: 'an object', list: 'a list', str: 'a string', int: 'a number'}


def read_text(path: str | Path, field: str) -> str:
    """Return a text file's content.

    Args:
        path (str | Path): UTF-8, with or without a byte order mark.
        field (str): What messages call the file, for example 'dataset.ann_file'.

    Raises:
        UserError: It cannot be read or is no text.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as e:
        reason = getattr(e, 'strerror', None) or e
        raise UserError(
            f"{field}: '{path}' cannot be read: {reason}. Fix: correct the path; "
            'docs/guides/vision_language.md says where files are expected.'
        ) from e
    for start, what in _NOT_TEXT:
        if data.startswith(start):
            raise UserError(f"{field}: '{path}' is {what}; expected text. {_AGAIN}")
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        raise UserError(f"{field}: '{path}' is no UTF-8 text ({e.reason}). {_AGAIN}") from e


def read_json(path: str | Path, kind: type | tuple[type, ...], field: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path (str | Path): The file.
        kind (type | tuple[type, ...]): ``dict`` or ``list``, or both: what the file holds at
            its top.
        field (str): What messages call the file.

    Raises:
        UserError: It cannot be read, is no JSON, or holds something else.
    """
    found = _parse(read_text(path, field), f"{field}: '{path}'")
    if not isinstance(found, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = ' or '.join(_KINDS[k] for k in kinds)
        raise UserError(
            f"{field}: '{path}' holds {_kind_of(found)}, expected {expected}. Fix: name the "
            'file that the data set documents.'
        )
    return found


def _kind_of(value: object) -> str:
    return _KINDS.get(type(value), f'a {type(value).__name__}')


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as e:
        raise UserError(f'{where} is nested too deeply for this format. {_AGAIN}') from e
    except ValueError as e:
        raise UserError(f'{where} is no JSON: {e}. {_AGAIN}') from e


def read_entries(content: dict, key: str, path: str | Path, field: str) -> list[dict]:
    """Return a list of objects that a JSON file holds under a key.

    Raises:
        UserError: There is no such list; the message names what there is instead.
    """
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        found = listing([repr(k) for k in content], 8)
        raise UserError(
            f"{field}: '{path}' has no list '{key}' of objects (its keys: {found or 'none'}), so "
            'it is a file of another kind. Fix: name the file that the data set documents.'
        )
    return entries


def read_rows(path: str | Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a CSV file with a header, or the objects of JSON lines.

    Args:
        path (str | Path): Ends in .csv, .tsv, .jsonl or .json (JSON lines).
        field (str): What messages call the file.

    Yields:
        tuple[str, dict]: Where it is, for messages, and the row. Values of CSV are
        strings.

    Raises:
        UserError: The file cannot be read, its ending is another one, or a row is
            damaged.
    """
    suffix = Path(path).suffix.lower()
    if suffix in ('.csv', '.tsv'):
        yield from _read_csv(path, field, ',' if suffix == '.csv' else '\t')
    elif suffix in ('.jsonl', '.json'):
        # A text in JSON may hold other ends of lines, U+2028 for example.
        for number, line in enumerate(read_text(path, field).split('\n'), 1):
            if not line.strip():
                continue
            row = _parse(line, f"{field}: line {number} of '{path}'")
            if not isinstance(row, dict):
                raise UserError(
                    f"{field}: line {number} of '{path}' holds {_kind_of(row)}, expected one "
                    f'JSON object a line. {_AGAIN}'
                )
            yield f'line {number}', row
    else:
        raise UserError(f"{field}: '{path}' must end in .csv, .tsv, .jsonl or .json (JSON lines).")


def _read_csv(path: str | Path, field: str, delimiter: str) -> Iterator[tuple[str, dict]]:
    text = read_text(path, field)
    check_end(text, path)
    reader = csv.DictReader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or []
        if twice := [n for n in dict.fromkeys(names) if names.count(n) > 1]:
            raise UserError(
                f"{field}: '{path}' has columns of the same name: {listing(twice)}. Fix: give each "
                'a name of its own; several texts of one cell have | between them.'
            )
        for row in reader:
            where = f'line {reader.line_num}'
            if None in row or None in row.values():
                raise UserError(
                    f"{field}: {where} of '{path}' has not as many cells as the header: "
                    f'{listing(reader.fieldnames or [])}. Fix: put quotes around cells that hold '
                    f'{delimiter!r} or line breaks.'
                )
            yield where, row
    except csv.Error as e:
        raise UserError(
            f"{field}: line {reader.line_num} of '{path}' is no CSV: {e}. {_AGAIN}"
        ) from e


def texts_of(row: dict, one: str, many: str, where: str) -> list[str] | None:
    """Return the texts that a row has under one of two names, or None.

    Args:
        row (dict): A row of :func:`read_rows`.
        one (str): The name of a single text, for example 'answer'.
        many (str): The name of a list of texts; in CSV a cell with ``|`` between them.
        where (str): The file and line, for messages.

    Raises:
        UserError: The value is neither a text nor a list of texts.
    """
    if many in row:
        value = row[many]
        found = value.split('|') if isinstance(value, str) else value
    elif one in row:
        found = [row[one]]
    else:
        return None
    if found is None or found == [None]:
        return []
    if not isinstance(found, list) or not all(isinstance(t, str) for t in found):
        raise UserError(f'{where}: {one} must be a text, or {many} a list of texts.')
    return [t.strip() for t in found if t.strip()]


def check_unique(total: int, ids: Sequence[object], found: dict, path: str) -> None:
    """Refuse a file whose entries are more than their different ids."""
    if len(found) < total:
        twice = [q for q, n in Counter(ids).items() if n > 1]
        raise UserError(
            f"'{path}' has {len(twice)} question id(s) more than once: {listing(twice)}. Fix: "
            'fetch the file again.'
        )


def check_pairs(
    questions: dict,
    annotations: dict,
    question_file: str,
    ann_file: str,
    about: tuple[str, str] = ('image_id', 'image'),
) -> None:
    """Refuse questions and annotations that do not belong together.

    Args:
        questions, annotations (dict): Entries by question ids.
        question_file, ann_file (str): Their files, for messages.
        about (tuple[str, str]): The key that both have of what they are about, and what
            messages call it.
    """
    key, noun = about
    missing = [q for q in questions if q not in annotations]
    extra = [q for q in annotations if q not in questions]
    both = [q for q in questions if q in annotations]
    other = [q for q in both if annotations[q][key] != questions[q][key]]
    problems = [
        f'{len(ids)} {what} ({listing(ids)})'
        for ids, what in (
            (missing, 'questions have no annotation'),
            (extra, 'annotations have no question'),
            (other, f'annotations are of another {noun}'),
        )
        if ids
    ]
    if problems:
        raise UserError(
            f"'{question_file}' and '{ann_file}' do not belong together: "
            f'{"; ".join(problems)}. Fix: fetch both files of the same split again.'
        )
