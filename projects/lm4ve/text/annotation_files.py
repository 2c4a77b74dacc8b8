"""Annotation files of texts: JSON, JSON lines and CSV. Nothing in them is executed.

The readers of data sets use entries without checking each field. For a file that is
damaged or of another kind, :func:`naming_file` turns whatever they raise into one error
that names the file.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm4ve.data.labels import warn_of_open_end
from lm4ve.errors import UserError, check, listing, require

#: What code raises that reads a missing or damaged file, or an entry of another type.
_READ_ERRORS = (
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    csv.Error,
)


@contextmanager
def naming_file(path: str | Path, field: str) -> Iterator[None]:
    """Name the file and the config's field in an error about the file or its content.

    Raises:
        UserError: It cannot be read, or something in it is missing or of another type.
    """
    try:
        yield
    except UserError:
        raise
    except _READ_ERRORS as error:
        raise UserError(
            f"{field}: '{path}' is missing, damaged or of another kind "
            f'({type(error).__name__}: {error}).'
        ) from error


def read_text(path: str | Path) -> str:
    """Return the content of a UTF-8 file, without a byte order mark, its line ends as they are."""
    return Path(path).read_bytes().decode('utf-8-sig')


def read_json(path: str | Path, kind: type | tuple[type, ...], field: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path (str | Path): The file.
        kind (type | tuple[type, ...]): ``dict`` or ``list``, or both: the type of its
            top.
        field (str): The config's field that names the file, for messages.

    Raises:
        UserError: It cannot be read, is no JSON, or holds something else.
    """
    with naming_file(path, field):
        content = json.loads(read_text(path))
    check(f"{field}: the content of '{path}'", content, kind=kind)
    return content


def read_rows(path: str | Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a CSV file with a header, or the objects of JSON lines.

    Args:
        path (str | Path): Ends in .csv, .tsv, .jsonl or .json (JSON lines).
        field (str): The config's field that names the file, for messages.

    Yields:
        tuple[str, dict]: 'line <number>', and the row. Values of CSV are strings.

    Raises:
        UserError: The file cannot be read, its ending is another one, or a row is
            damaged.
    """
    suffix = Path(path).suffix.lower()
    check(
        f"{field}: the ending of '{path}'",
        suffix,
        choices=('.csv', '.tsv', '.jsonl', '.json'),
    )
    with naming_file(path, field):
        text = read_text(path)
        if suffix == '.csv':
            rows = _csv_rows(text, path, delimiter=',')
        elif suffix == '.tsv':
            rows = _csv_rows(text, path, delimiter='\t')
        else:
            rows = _json_rows(text)
        for number, row in rows:
            yield f'line {number}', row


def _json_rows(text: str) -> Iterator[tuple[int, dict]]:
    """Yield the number and the object of each line that is not empty."""
    # Not splitlines: a text in JSON may hold other ends of lines, for example U+2028.
    for number, line in enumerate(text.split('\n'), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f'line {number} is no object')
        yield number, row


def _csv_rows(
    text: str, path: str | Path, delimiter: str
) -> Iterator[tuple[int, dict]]:
    """Yield the number of the last line and the cells of each row, by column."""
    warn_of_open_end(text, path)
    reader = csv.DictReader(
        io.StringIO(text, newline=''), delimiter=delimiter, strict=True
    )
    names = reader.fieldnames or ()
    require(
        len(set(names)) == len(names),
        f"'{path}' has two columns of one name among {listing(names, 12)}. Fix: rename one.",
    )
    for row in reader:
        # csv.DictReader puts superfluous cells under None, and None for missing ones.
        if None in row or None in row.values():
            raise ValueError(
                f'line {reader.line_num} has not as many cells as the header'
            )
        yield reader.line_num, row


def texts_of(row: dict, one: str, many: str, where: str) -> list[str] | None:
    """Return the texts that a row has under one of two names, without blanks at their ends.

    Empty texts are left out; null, where JSON has it, counts as no text. None is returned
    for a row without either name.

    Args:
        row (dict): A row of :func:`read_rows`.
        one (str): The name of a single text, for example 'answer'.
        many (str): The name of a list of texts; in CSV a cell with ``|`` between them.
        where (str): The file and line, for messages.

    Raises:
        UserError: The value is neither a text nor a list of texts.
    """
    if one not in row and many not in row:
        return None
    if many in row:
        texts = row[many]
    else:
        texts = [row[one]]
    if isinstance(texts, str):
        texts = texts.split('|')
    # null in JSON.
    if texts in (None, [None]):
        return []
    stripped = []
    for text in texts:
        check(f'{where}: {one}', text, kind=str)
        if text.strip():
            stripped.append(text.strip())
    return stripped


def check_unique(ids: Sequence[object], path: str) -> None:
    """Refuse a file in which a question id occurs more than once."""
    twice = [question_id for question_id, count in Counter(ids).items() if count > 1]
    check(
        f"question ids that '{path}' has more than once ({listing(twice)})",
        len(twice),
        most=0,
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
        about (tuple[str, str]): The key that both have of what they are about, and its
            noun.

    Raises:
        UserError: A question has no annotation or the reverse, or they are about
            different things.
    """
    key, noun = about
    without_partner = []
    for question_id in {**questions, **annotations}:
        question = questions.get(question_id, {})
        annotation = annotations.get(question_id, {})
        if question.get(key) != annotation.get(key):
            without_partner.append(question_id)
    check(
        f"'{question_file}' and '{ann_file}': questions without a partner or about "
        f'another {noun} ({listing(without_partner)})',
        len(without_partner),
        most=0,
    )
