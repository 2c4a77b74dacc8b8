"""The line that is printed of an error: what went wrong, where, and which log has the rest."""

import itertools
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

from mmengine.logging import MMLogger

from lm4ve.errors import StorageError, UserError
from lm4ve.runner.building import find_built_field

#: Begins the part of an error's line that differs by process.
TRACEBACK = ' (traceback: '
#: What PyTorch says of a worker that has ended, and by which signal.
_LOST_WORKER = re.compile(
    r'DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) '
    r'(?:is killed by signal: (?P<name>[\w ]+)|exited unexpectedly)'
)
#: What the errors of gloo, of the store and of nccl say where another process has ended.
_LOST_CONNECTION = (
    'gloo/transport/tcp/pair.cc',
    'DistNetworkError: Failed to recv',
    'DistNetworkError: Connection reset by peer',
    'DistNetworkError: Broken pipe',
    'remote process exiting prematurely',
)
#: Begins a line of a traceback that names a file.
_FRAME = '  File "'
#: Characters of an error's words that are printed.
_LENGTH = 1000


def line_of(error: BaseException) -> str:
    """Return the line that is printed of an error; the current log gets its traceback.

    Our own errors say all in their message.
    """
    if isinstance(error, (UserError, StorageError)):
        return without_traceback(error)
    log = current_log()
    if log is None:
        log = new_log()
    command = ' '.join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    return f'{command}: {with_traceback(error, log)}'


def with_traceback(error: BaseException, log: Path) -> str:
    """Return an error in words, which name the log that gets its traceback.

    Args:
        error (BaseException): The error.
        log (Path): Written to, at its end.
    """
    with open(log, 'a', encoding='utf-8') as file:
        file.write(''.join(traceback.format_exception(error)))
    return f'{describe(error)}{TRACEBACK}{log})'


def describe(error: BaseException) -> str:
    """Return an error in words.

    Our own errors have them. Of another library's: a dataloader's worker that has ended,
    a process that is lost, or the field that is built, its type and its text.
    """
    if isinstance(error, (UserError, StorageError)):
        return without_traceback(error)
    worker = lost_worker_behind(error)
    if worker:
        return worker
    words = f'{type(error).__name__}: {words_of(error)}'
    if is_lost_connection(words):
        return f'another process has ended, whose own error says why ({words})'
    field = find_built_field(error)
    if field is None:
        return words
    return f'{field}: {words}'


def without_traceback(error: UserError | StorageError) -> str:
    """Return an error's message alone.

    A dataloader raises a worker's error anew, with the worker's traceback before the
    message.
    """
    kind = type(error)
    start = f'{kind.__module__}.{kind.__name__}: '
    return str(error).rpartition(start)[2].strip()


def is_lost_connection(words: str) -> bool:
    """Return whether an error's type and words say that another process has ended."""
    return any(part in words for part in _LOST_CONNECTION)


def lost_worker_behind(error: BaseException) -> str:
    """Return a sentence on the dataloader's worker whose end led to an error; '' if none did."""
    sentence = ''
    cause: BaseException | None = error
    while cause is not None:
        lost = _LOST_WORKER.search(str(cause))
        if lost is not None:
            how = 'has ended without a word'
            if lost['name']:
                how = f'was killed by a signal: {lost["name"].strip()}'
            sentence = (
                f'a worker of a dataloader (process {lost["pids"]}) {how} (out of memory?). '
                'Fix: fewer num_workers, or a smaller batch_size'
            )
        if lost is not None and lost['name']:
            break
        cause = cause.__cause__ or cause.__context__
    return sentence


def words_of(error: BaseException) -> str:
    """Return an error's text in one line, without its middle if it is long."""
    words = ' '.join(_text_of(error).split())
    if len(words) <= _LENGTH:
        return words
    # What went wrong often stands at the end.
    return f'{words[: _LENGTH // 2]} ... {words[-_LENGTH // 2 :]}'


def _text_of(error: BaseException) -> str:
    """Return an error's text; of one that a dataloader's worker has raised, its end.

    PyTorch puts the worker's whole traceback into the message, before what it was.
    """
    text = str(error)
    lines = text.splitlines()
    is_of_worker = any(line.startswith('Original Traceback') for line in lines)
    frames = [number for number, line in enumerate(lines) if line.startswith(_FRAME)]
    if not is_of_worker or not frames:
        return text
    behind = lines[frames[-1] + 1 :]
    # The line of code, and marks below it, are indented.
    cause = itertools.dropwhile(lambda line: line.startswith('    '), behind)
    return ' '.join([lines[0], *cause])


def current_log() -> Path | None:
    """Return the file of the current log, or None if there is no log."""
    path = MMLogger.get_current_instance().log_file
    if path is None or not Path(path).parent.is_dir():
        return None
    return Path(path)


def new_log() -> Path:
    """Return a new temporary file, where there is no log."""
    descriptor, path = tempfile.mkstemp('.log', 'lm4ve-error-')
    os.close(descriptor)
    return Path(path)
