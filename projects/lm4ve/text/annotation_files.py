"""Annotation files of texts: JSON, JSON lines and CSV. Nothing in them is executed.

A file that is damaged or of another kind ends in one error that names it
(:func:`naming_file`), since the readers of formats use entries without checking each
field.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm4ve.errors import UserError, check, listing, require
from lm4ve.files import check_end


@contextmanager
def naming_file(path: str | Path, field: str) -> Iterator[None]:
    """Name the file and the config's field in an error about the file or its content.

    Raises:
        UserError: It cannot be read, or something in it is missing or of another type.
    """
    foreign = (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        csv.Error,
    )
    try:
        yield
    except UserError:
        raise
    except (OSError, *foreign) as e:
        raise UserError(
            f"{field}: '{path}' is missing, damaged or of another kind ({type(e).__name__}: {e})."
        ) from e


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
        if suffix in ('.csv', '.tsv'):
            rows = _csv_rows(text, path, ',' if suffix == '.csv' else '\t')
        else:
            # Not splitlines: a text in JSON may hold other ends of lines, U+2028 for
            # example.
            lines = enumerate(text.split('\n'), 1)
            rows = (
                (number, json.loads(line)) for number, line in lines if line.strip()
            )
        for number, row in rows:
            if not isinstance(row, dict):
                raise ValueError(f'line {number} is no object')
            yield f'line {number}', row


def _csv_rows(
    text: str, path: str | Path, delimiter: str
) -> Iterator[tuple[int, dict]]:
    check_end(text, path)
    reader = csv.DictReader(
        io.StringIO(text, newline=''), delimiter=delimiter, strict=True
    )
    names = reader.fieldnames or ()
    require(
        len(set(names)) == len(names),
        f"'{path}' has two columns of one name among {listing(names, 12)}. Fix: rename one.",
    )
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(
                f'line {reader.line_num} has not as many cells as the header'
            )
        yield reader.line_num, row


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
    if one not in row and many not in row:
        return None
    texts = row.get(many, [row.get(one)])
    if isinstance(texts, str):
        texts = texts.split('|')
    if texts in (None, [None]):
        return []
    for text in texts:
        check(f'{where}: {one}', text, kind=str)
    return [t.strip() for t in texts if t.strip()]


def check_unique(ids: Sequence[object], path: str) -> None:
    """Refuse a file in which a question id occurs more than once."""
    twice = [q for q, n in Counter(ids).items() if n > 1]
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
    ids = {**questions, **annotations}
    other = [
        q
        for q in ids
        if questions.get(q, {}).get(key) != annotations.get(q, {}).get(key)
    ]
    name = f'questions without a partner or about another {noun} ({listing(other)})'
    check(f"'{question_file}' and '{ann_file}': {name}", len(other), most=0)
