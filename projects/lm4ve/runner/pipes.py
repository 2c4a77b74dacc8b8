"""End a command whose reader is gone, as ``lm4ve list | head`` ends it.

Python turns the signal SIGPIPE into a ``BrokenPipeError`` in the middle of a ``print``.
The signal's own default would end the process at any closed pipe, too, such as one of a
worker of a dataloader; so we only act where it is the standard output that nobody reads
any more.
"""

import contextlib
import io
import os
import select
import signal
import sys
from collections.abc import Iterator

#: The exit code that a shell shows of a tool that SIGPIPE ended.
CLOSED_OUTPUT = 128 + signal.SIGPIPE


@contextlib.contextmanager
def exit_when_output_is_closed() -> Iterator[None]:
    """Exit silently with the code 141 if a write fails because the output has no reader.

    Raises:
        BrokenPipeError: Another pipe or socket was closed.
        SystemExit: The reader of the standard output is gone.
    """
    try:
        try:
            yield
        finally:
            # Otherwise Python would write the rest of the buffer when it ends, and an
            # error there could not be caught.
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_output_closed():
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        sys.exit(CLOSED_OUTPUT)


def _is_output_closed() -> bool:
    """Return whether the standard output is a pipe that has no reader."""
    try:
        output = sys.stdout.fileno()
    except io.UnsupportedOperation:  # an object in its place, as in a notebook
        return False
    poll = select.poll()
    poll.register(output, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
