"""Names of the files that pictures of inputs are written to."""

import re
from pathlib import Path
from typing import Any


def file_name(number: int, source: Any = None) -> str:
    """Return a name for the picture of an input: its number, and its file's if it has one.

    Args:
        number (int): The input's number.
        source (str | Path | Any): A path; anything else is no file.
    """
    if isinstance(source, (str, Path)):
        return numbered(number, Path(source).stem)
    return numbered(number, None)


def numbered(number: int, name: str | None) -> str:
    """Return a number and a name in one; the names alone need not differ."""
    if name is None:
        return f'{number:05d}'
    return safe_name(f'{number:05d}_{name}')


def safe_name(name: str) -> str:
    """Replace everything but letters, digits, `_`, `.` and `-`."""
    return re.sub(r'[^\w.-]+', '_', name)
