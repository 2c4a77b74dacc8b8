"""The one place where an exception becomes a line on stderr and an exit code."""

import contextlib
import gc
import hashlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
from mmengine.logging import MessageHub
from torch.distributed.distributed_c10d import _get_default_store

from lm4ve import compat
from lm4ve.errors import UserError
from lm4ve.files import is_storage_error, may_pass
from lm4ve.runner.ending.signals import (
    STOP_SIGNALS,
    exit_code_after,
    handle_signals,
    ignore_ends_of_workers,
    is_one_of_several,
    signal_behind,
)
from lm4ve.runner.ending.together import is_of_all
from lm4ve.runner.error_lines import (
    TRACEBACK,
    current_log,
    is_lost_connection,
    line_of,
    lost_worker_behind,
)
from lm4ve.runner.exit_codes import DONE, TRY_AGAIN, USERS_MISTAKE
from lm4ve.runner.pipes import exit_when_output_is_closed
from lm4ve.runner.process_rank import is_first_process, process_rank

#: Environment variable with the folder where the processes of a launcher leave errors.
ERRORS = 'LM4VE_ERRORS'
#: The file in that folder with the line to print when a signal has ended the command.
STOP_FILE = 'stop'
#: In the message hub, the sentence that a stopped command ends with; without one, it is
#: that of a training.
AFTER_STOP = 'after_stop'
#: Seconds in which others may ask the first process whether an error was printed.
_PATIENCE = 1.0


def run_tool(main: Callable[[], None]) -> None:
    """Run a command; any exception becomes one line on stderr and an exit code.

    The code is one of :mod:`lm4ve.runner.exit_codes`, 130 after Ctrl-C, or 141 where
    nobody reads the output any more. Tracebacks go to the log file. Of several
    processes, one that fails alone ends at once: the others learn of an error only by
    the end of its process.

    Args:
        main (Callable): The command. It takes nothing; what it returns is dropped.

    Raises:
        SystemExit: With the code, after an error.
    """
    compat.activate()
    code = DONE
    # Whether no process waits for this one where it ends.
    is_orderly = True
    with handle_signals():
        try:
            with exit_when_output_is_closed():
                main()
        except (Exception, KeyboardInterrupt) as e:
            ignore_ends_of_workers()
            code = _report_error(e)
            is_orderly = is_of_all(e)
        except SystemExit as e:
            if not torch.distributed.is_initialized() or not isinstance(e.code, int):
                raise
            code = e.code
            is_orderly = code == DONE
    # Not above: the exception holds the model there, and with it the group.
    if torch.distributed.is_initialized():
        if is_orderly:
            _leave_group()
        if code != DONE:
            _end_now(code)
    if code != DONE:
        sys.exit(code)


def _report_error(error: BaseException) -> int:
    """Report the error or signal that ended a command, and return its exit code.

    The codes are those of :func:`run_tool`.
    """
    number = signal_behind(error)
    if number is not None:
        _report_stop(number)
        return exit_code_after(number)
    _report_once(error, line_of(error))
    if may_pass(error):
        return TRY_AGAIN
    if isinstance(error, UserError):
        return USERS_MISTAKE
    if is_storage_error(error) or lost_worker_behind(error):
        return TRY_AGAIN
    # Before the processes have met, one may be killed, too, and others lose it.
    is_lost = isinstance(error, torch.distributed.DistError)
    if is_lost or torch.distributed.is_initialized():
        return TRY_AGAIN
    return USERS_MISTAKE


def _report_stop(number: signal.Signals) -> None:
    """Print which signal ended a command, and how to go on; the first process only.

    A launcher prints it where the signal was not its own.
    """
    if not is_first_process():
        return
    info = MessageHub.get_current_instance().runtime_info
    how = info.get(AFTER_STOP, f'Saved: {_newest_saved()} (--resume).')
    line = f'Stopped by {number.name}. {how}'
    folder = os.environ.get(ERRORS)
    if folder is None:
        print(f'\n{line}', file=sys.stderr)
    else:
        Path(folder, STOP_FILE).write_text(line, encoding='utf-8')


def _newest_saved() -> str:
    """Return the path of the checkpoint that ``--resume`` takes, or 'nothing'.

    MMEngine names it in the work directory, which has a folder for each start's log.
    """
    log = current_log()
    if log is None:
        return 'nothing'
    pointer = log.parent.parent / 'last_checkpoint'
    if not pointer.is_file():
        return 'nothing'
    return pointer.read_text(encoding='utf-8').strip()


def _report_once(error: BaseException, message: str) -> None:
    """Report an error, unless another process reports it.

    The first process reports what all have agreed on. Processes that have met ask their
    store whether one of them has had the same error. Before, a mistake of the user's is
    the same to all processes of a machine.
    """
    if os.environ.get(ERRORS) is not None:
        report(message)
        return
    if is_of_all(error):
        is_reported = not is_first_process()
    elif torch.distributed.is_initialized():
        is_reported = _was_reported(message.partition(TRACEBACK)[0])
    else:
        is_mistake = isinstance(error, UserError)
        is_reported = is_mistake and is_one_of_several() and not _is_first_of_machine()
    if not is_reported:
        report(message)


def _was_reported(sentence: str) -> bool:
    """Return whether another process of the group has reported a sentence; note that this one does.

    The store may be gone with its process.
    """
    if is_lost_connection(sentence):
        # The words have addresses, which differ by process.
        sentence = 'lost connection'
    name = f'lm4ve_error/{hashlib.sha256(sentence.encode()).hexdigest()}'
    try:
        count: int = _get_default_store().add(name, 1)
    except RuntimeError:
        return False
    return count > 1


def _is_first_of_machine() -> bool:
    """Return whether this process is the first of its machine, as its launcher says."""
    local = os.environ.get('SLURM_LOCALID', os.environ.get('LOCAL_RANK', '0'))
    return local == '0'


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
    """End this process after a failure, and its children.

    It has not left its group if it failed alone. On nccl, leaving the group first
    finishes what was begun together with processes that wait for this one: it may never
    return, and no launcher sees a process that does not end. The interpreter's own end
    would abort gloo's threads (:func:`_leave_group`).
    """
    ignore_ends_of_workers()
    # A second signal changes nothing any more.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for child in multiprocessing.active_children():
        child.terminate()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    is_asked_by_others = torch.distributed.is_initialized() and is_first_process()
    if is_asked_by_others and code != DONE:
        time.sleep(_PATIENCE)
    os._exit(code)
