"""Let all processes of a training fail together where one of them fails.

A process that fails alone leaves the others in the next exchange, where they wait until the
launcher ends them, and print errors of a lost connection.
"""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from mmengine.dist import all_gather_object, get_world_size

from lm4ve.errors import StorageError, UserError
from lm4ve.files import may_pass

Error = TypeVar('Error', bound=BaseException)


class Stopped(KeyboardInterrupt):
    """All processes of a training have stopped at a signal, whose number is the argument."""

    is_of_all = True


def of_all(error: Error) -> Error:
    """Mark an error as one that all processes raise, and return it.

    The first process alone reports it then, and they leave their group in order.
    """
    error.is_of_all = True  # type: ignore[attr-defined]
    return error


def is_of_all(error: BaseException) -> bool:
    """Return whether all processes raise an error: see :func:`of_all`."""
    return getattr(error, 'is_of_all', False)


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Wait at the end of this context for the other processes, and fail where one of them did.

    Raises:
        UserError, StorageError: One of the processes has raised it.
        RuntimeError: One has raised another error, whose words it has.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    if get_world_size() == 1:
        if own is not None:
            raise own
        return
    for sent in all_gather_object(_as_sent(own)):
        if sent is not None:
            raise of_all(sent) from own


def _as_sent(error: Exception | None) -> Exception | None:
    """Return an error in a form that every process can build: its kind, and its words."""
    if error is None:
        return None
    if may_pass(error):
        return StorageError(str(error))
    for kind in (StorageError, UserError):
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(f'{type(error).__name__}: {error}')
