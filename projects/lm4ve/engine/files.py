"""Write result files: whole or not at all.

A full disk or a killed job must not leave half of a file under a name that
somebody trusts. So every file is written beside its name, synced to disk, and
renamed.
"""

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm4ve.errors import UserError

_FIX = 'make room, or write to another folder'


@contextlib.contextmanager
def replacing(path: str | Path, fix: str = _FIX) -> Iterator[Path]:
    """Give a path to write to; on leaving, the written file replaces ``path``.

    For libraries that take a path. The temporary name ends as ``path`` does, since
    many libraries choose the format by the ending, and holds host, process and a
    random part, since several machines may share a folder. After any error
    ``path`` is as it was and nothing is left beside it.

    Args:
        path (str | Path): The file; its folder is made if it is not there.
        fix (str): What the user can do if the file cannot be written.

    Yields:
        Path: A file that does not exist yet, in the folder of ``path``.

    Raises:
        UserError: There is no room or no permission.
    """
    path = Path(path)
    unique = f'{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}'
    beside = path.with_name(f'.{path.stem}.{unique}.tmp{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with open(beside, 'rb') as f:
            os.fsync(f.fileno())
        os.replace(beside, path)
    except OSError as e:
        raise UserError(
            f"'{path}' could not be written: {e.strerror or e}. What was there "
            f'before is untouched. Fix: {fix}.'
        ) from e
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(data: bytes | memoryview, path: str | Path, fix: str = _FIX) -> None:
    """Write bytes so that ``path`` holds either the old or the new content.

    Takes and raises what :func:`replacing` does.
    """
    with replacing(path, fix) as beside:
        beside.write_bytes(data)


def write_text(text: str, path: str | Path, fix: str = _FIX) -> None:
    """Write a text as UTF-8, with :func:`write_atomically`."""
    write_atomically(text.encode(), path, fix)


def write_json(value: Any, path: str | Path, fix: str = _FIX) -> None:
    """Write plain data as indented JSON, with :func:`write_atomically`."""
    write_text(json.dumps(value, indent=1), path, fix)
