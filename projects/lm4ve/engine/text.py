"""Texts of others: lists that are read line by line, and how messages name their parts."""

from collections.abc import Sequence
from pathlib import Path

from lm4ve.errors import UserError


def listing(names: Sequence[object], limit: int = 5) -> str:
    """Join names for a message: the first ones, and how many more there are."""
    text = ', '.join(map(str, names[:limit]))
    more = len(names) - limit
    return f'{text} and {more} more' if more > 0 else text


def brief(value: object, limit: int = 60) -> str:
    """Show a value of somebody's file in a message: printable, and not much of it."""
    text = str(value)
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= limit else f'{shown[:limit]}...'


def decoded(data: bytes, path: str | Path) -> str:
    """Decode a text.

    Raises:
        UserError: It is no UTF-8.
    """
    try:
        return data.decode('utf-8')
    except UnicodeDecodeError as e:
        raise UserError(
            f"'{path}' is no text file ({e.reason} at byte {e.start}). Expected one entry a "
            'line, in UTF-8. Fix: write it again.'
        ) from e


def whole_lines(data: bytes, path: str | Path) -> list[str]:
    """Split a list of one entry a line, and refuse one that was cut within its last line.

    For lists whose entries end in a number: of 12 cut after the 1 nothing else tells.

    Args:
        data (bytes): The file's content.
        path (str | Path): The file, for messages.

    Returns:
        list[str]: Its lines without their ends.

    Raises:
        UserError: It is no UTF-8 text, or its last line has no end.
    """
    text = decoded(data, path)
    check_end(text, path)
    return text.splitlines()


def check_end(text: str, path: str | Path) -> None:
    """Refuse a text of one entry a line whose last line has no end.

    Raises:
        UserError: It names the file.
    """
    if text.rstrip(' \t') and not text.rstrip(' \t').endswith(('\n', '\r')):
        raise UserError(
            f"The last line of '{path}' has no end, so it may be cut. Fix: write the list again, "
            "or, if it is whole, end the line: sed -i '$a\\' FILE"
        )
