"""The one place where an exception becomes a line on stderr and an exit code."""

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
from mmengine.logging import MessageHub, MMLogger

from lm4ve import compat
from lm4ve.errors import StorageError, UserError
from lm4ve.files import is_storage_error
from lm4ve.runner.building import find_built_field
from lm4ve.runner.exit_codes import STOPPED
from lm4ve.runner.pipes import exit_when_output_is_closed
from lm4ve.runner.process_rank import is_first_process, process_rank
from lm4ve.runner.stopping import handle_signals, signal_behind

#: Environment variable with the folder where the processes of a launcher leave errors.
ERRORS = 'LM4VE_ERRORS'
#: The file in that folder with the line to print when a signal has ended the command.
STOP_FILE = 'stop'
#: In the message hub, the sentence that a stopped command ends with; without one, it is
#: that of a training.
AFTER_STOP = 'after_stop'
#: Begins the part of an error's line that differs by process.
TRACEBACK = ' (traceback: '


def run_tool(main: Callable[[], None]) -> None:
    """Run a command; any exception becomes one line on stderr and an exit code.

    The code is 2; 130 after Ctrl-C, 143 after SIGTERM, SIGUSR1 or SIGUSR2; 141 where
    nobody reads the output any more; and 1 where another start may help: storage did not
    give a file, or one of several processes had an error that the user need not mend.
    Tracebacks go to the log file. Of several processes, one that fails ends at once: the
    others learn of an error only by the end of its process.

    Args:
        main (Callable): The command. It takes nothing; what it returns is dropped.

    Raises:
        SystemExit: With the code, after an error.
    """
    compat.activate()
    try:
        with handle_signals():
            try:
                with exit_when_output_is_closed():
                    main()
            except (Exception, KeyboardInterrupt) as e:
                sys.exit(_report_error(e))
    except SystemExit as e:
        if torch.distributed.is_initialized() and isinstance(e.code, int):
            _end_now(e.code)
        raise
    if torch.distributed.is_initialized():
        _leave_group()


def _report_error(error: BaseException) -> int:
    """Report the error or signal that ended a command, and return its exit code.

    The codes are those of :func:`run_tool`.
    """
    number = signal_behind(error)
    if number is not None:
        _report_stop(number)
        if number == signal.SIGINT:
            return 128 + number
        return STOPPED
    if isinstance(error, UserError):
        report(without_traceback(error))
        return 2
    if isinstance(error, StorageError):
        report(without_traceback(error))
        return 1
    report(_in_one_line(error))
    if is_storage_error(error):
        return 1
    # Before the processes have met, one may be killed, too, and others lose it.
    is_lost = isinstance(error, torch.distributed.DistError)
    if is_lost or torch.distributed.is_initialized():
        return 1
    return 2


def without_traceback(error: UserError | StorageError) -> str:
    """Return an error's message alone.

    A dataloader raises a worker's error anew, with the worker's traceback before the
    message.
    """
    kind = type(error)
    start = f'{kind.__module__}.{kind.__name__}: '
    return str(error).rpartition(start)[2].strip()


def _report_stop(number: signal.Signals) -> None:
    """Print which signal ended a command, and how to go on; the first process only.

    A launcher prints it where the signal was not its own.
    """
    if not is_first_process():
        return
    info = MessageHub.get_current_instance().runtime_info
    saved = info.get('last_ckpt', 'nothing')
    how = info.get(AFTER_STOP, f'Saved: {saved} (--resume).')
    line = f'Stopped by {number.name}. {how}'
    folder = os.environ.get(ERRORS)
    if folder is None:
        print(f'\n{line}', file=sys.stderr)
    else:
        Path(folder, STOP_FILE).write_text(line, encoding='utf-8')


def _in_one_line(error: BaseException) -> str:
    """Describe an exception in one line, and write its traceback to the log file."""
    command = ' '.join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    path = _log_file()
    with open(path, 'a', encoding='utf-8') as log:
        log.write(''.join(traceback.format_exception(error)))
    words = ' '.join(str(error).split())[:1000]
    field = find_built_field(error)
    place = '' if field is None else f'{field}: '
    return f'{command}: {place}{type(error).__name__}: {words}{TRACEBACK}{path})'


def _log_file() -> str:
    """Return the file of the current log, or a new temporary one if there is no log."""
    if MMLogger._instance_dict:
        path = MMLogger.get_current_instance().log_file
        if path is not None and Path(path).parent.is_dir():
            return str(path)
    descriptor, path = tempfile.mkstemp('.log', 'lm4ve-error-')
    os.close(descriptor)
    return path


def report(message: str) -> None:
    """Print an error, or leave it to the launcher, which prints it once for all processes."""
    folder = os.environ.get(ERRORS)
    if folder is None:
        print(f'\nerror: {message}', file=sys.stderr)
        return
    path = Path(folder, f'{process_rank()}.txt')
    path.write_text(message, encoding='utf-8')


def _leave_group() -> None:
    """Free what a command has built, then the processes' group.

    A model in DDP holds the group. If it lives until the interpreter ends, the threads
    of gloo are still running then, and now and then the process is aborted: "terminate
    called without an active exception" (PyTorch issue 190489).
    """
    gc.collect()
    torch.distributed.destroy_process_group()


def _end_now(code: int) -> NoReturn:
    """End this process after a failure, and its children, without leaving the group.

    On nccl, leaving the group first finishes what was begun together with processes
    that wait for this one: it may never return, and no launcher sees a process that does
    not end. The interpreter's own end would abort gloo's threads (:func:`_leave_group`).
    """
    # PyTorch's handler raises an error when a worker of a dataloader ends.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.terminate()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
