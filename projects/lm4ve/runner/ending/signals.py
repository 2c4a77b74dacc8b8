"""End a command at a signal: Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2.

An exception in the middle of an iteration could be caught by what runs there, and would
lose the iterations since the last checkpoint. So while a training loop runs, the handler
only notes signals other than Ctrl-C, and :class:`lm4ve.EndingHook` saves a checkpoint and
raises after the iteration. Schedulers send SIGTERM when they preempt a job; SIGUSR1 and
SIGUSR2 are what they are asked to send before a time limit.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lm4ve.runner.exit_codes import STOPPED

#: Signals that end a command.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
#: The exit code after Ctrl-C, which is that of a shell.
INTERRUPTED = 128 + signal.SIGINT
#: Seconds within which the same signal counts once: a scheduler and a parent may both send it.
_SAME = 1.0
#: Signals that workers of dataloaders ignore, unless their training sends them.
_IGNORED_BY_WORKERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class SignalHandler:
    """The handler of :data:`STOP_SIGNALS` while a command runs.

    Attributes:
        asked (int, optional): The number of the signal that came. Its exception may
            have been caught by the code that ran, as by MMEngine's copy of its message
            hub.
        waits (bool): Whether signals other than Ctrl-C are only noted here, for
            :class:`lm4ve.EndingHook`.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.waits = False
        self._asked_at = 0.0
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal: note it, and raise an exception unless it has to wait.

        Args:
            number (int): The signal.
            frame (FrameType, optional): Not used: Python passes the interrupted frame.

        Raises:
            KeyboardInterrupt: At Ctrl-C, and at others unless they wait. Its argument
                is the signal's number.
        """
        # A forked worker of a dataloader inherits this handler. It has nothing to save.
        if os.getpid() != self._process and number != signal.SIGINT:
            os._exit(STOPPED)
        now = time.monotonic()
        is_repeated = self.asked == number and now - self._asked_at < _SAME
        if is_repeated and number != signal.SIGINT:
            return
        self.asked = number
        self._asked_at = now
        if number == signal.SIGINT or not self.waits:
            raise KeyboardInterrupt(number)
        ignore_ends_of_workers()

    def install(self, numbers: Iterable[int]) -> None:
        """Handle signals, unless they are handled already. Where Ctrl-C is ignored, it stays so.

        Args:
            numbers (Iterable[int]): Of :data:`STOP_SIGNALS`.
        """
        for number in numbers:
            before = signal.getsignal(number)
            # A shell lets its background jobs ignore Ctrl-C.
            is_ignored = before is not signal.default_int_handler
            if before is self or (number == signal.SIGINT and is_ignored):
                continue
            self._before[number] = signal.signal(number, self)

    def wait_for_training(self) -> None:
        """Only note signals from now on: a training loop begins, which saves at its time."""
        self.install(STOP_SIGNALS)
        self.waits = True

    def restore(self) -> None:
        """Give the signals back to the handlers before this one."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}


#: The handler of the command that runs in this process, if one does.
_current: SignalHandler | None = None


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Handle :data:`STOP_SIGNALS` within this context.

    One of several processes handles Ctrl-C alone until its training begins: a process
    that waits for the others runs no handler of Python's.
    """
    global _current
    before = _current
    _current = SignalHandler()
    _current.install((signal.SIGINT,) if is_one_of_several() else STOP_SIGNALS)
    try:
        yield
    finally:
        _current.restore()
        _current = before


def exit_code_after(number: int) -> int:
    """Return what a command exits with that a signal has ended; see :data:`STOP_SIGNALS`."""
    if number == signal.SIGINT:
        return INTERRUPTED
    return STOPPED


def is_one_of_several() -> bool:
    """Return whether a launcher has started this process along with others."""
    by_torchrun = int(os.environ.get('WORLD_SIZE', 1))
    by_slurm = int(os.environ.get('SLURM_STEP_NUM_TASKS', 1))
    return by_torchrun > 1 or by_slurm > 1


def current_signals() -> SignalHandler | None:
    """Return the handler of the command that runs; None where none does, as in a notebook."""
    return _current


def ignore_ends_of_workers() -> None:
    """Let no handler raise an error when a worker of a dataloader ends.

    PyTorch's would raise it wherever this process is, also in the middle of a checkpoint
    or of the report of an error. Workers may get the same signal as their training.
    """
    # Not the default action: a signal that Python has noted, and not handled yet, would
    # be one without a handler, of which it prints a traceback.
    signal.signal(signal.SIGCHLD, lambda number, frame: None)


def signal_behind(error: BaseException) -> signal.Signals | None:
    """Return the signal whose exception is among an error's causes, or None.

    A library may catch a signal's exception and raise another one, as MMEngine does
    while it formats a config ("Failed to format the config file").
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            for number in STOP_SIGNALS:
                if number in cause.args:
                    return number
            return signal.SIGINT
        cause = cause.__cause__ or cause.__context__
    return None


def keep_workers_at_signals(loader: Any) -> None:
    """Let the workers of a dataloader outlive the signals that their training heeds.

    A scheduler signals all processes of a job. A training cannot finish its iteration if
    its workers end at once.

    Args:
        loader (DataLoader): Changed in place, before it starts workers.
    """
    prepare = loader.worker_init_fn
    if not isinstance(prepare, _PreparedWorker):
        loader.worker_init_fn = _PreparedWorker(prepare)


class _PreparedWorker:
    """Prepares a worker of a dataloader: sets how it handles signals.

    Args:
        prepare (Callable, optional): The dataloader's own function for it.
    """

    def __init__(self, prepare: Callable[[int], Any] | None) -> None:
        self._prepare = prepare

    def __call__(self, worker_id: int) -> None:
        """Let a thread handle signals in place of PyTorch's handler; call the own function."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED_BY_WORKERS)
        threading.Thread(target=_end_by_parent, daemon=True).start()
        if self._prepare is not None:
            self._prepare(worker_id)


def _end_by_parent() -> None:
    """End this worker at a SIGTERM of its training, and ignore signals of others.

    A worker whose training has ended without a word ends by itself.
    """
    parent = os.getppid()
    while True:
        if _wait_for_end(parent):
            os._exit(0)


def _wait_for_end(parent: int) -> bool:
    """Wait for a signal, and return whether it is a SIGTERM of the parent.

    macOS does not tell who sent a signal: there, any SIGTERM counts.
    """
    if not hasattr(signal, 'sigwaitinfo'):
        return signal.sigwait(_IGNORED_BY_WORKERS) == signal.SIGTERM
    received = signal.sigwaitinfo(_IGNORED_BY_WORKERS)
    return received.si_signo == signal.SIGTERM and received.si_pid == parent
