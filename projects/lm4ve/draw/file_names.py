"""Names of the files that pictures of inputs are written to."""

import re
from pathlib import Path
from typing import Any


def file_name(number: int, source: Any = None) -> str:
    """Return a name for the picture of an input: its number, and its file where it is one."""
    return numbered(
        number, Path(source).stem if isinstance(source, (str, Path)) else None
    )


# --------------------------------------------------------------- for several tasks
def numbered(number: int, name: str | None) -> str:
    """Join a number and a name: files of two classes may share a name."""
    return safe_name(f'{number:05d}' if name is None else f'{number:05d}_{name}')


def safe_name(name: str) -> str:
    """Replace everything but letters, digits, `_`, `.` and `-`."""
    return re.sub(r'[^\w.-]+', '_', name)
