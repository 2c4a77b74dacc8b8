"""End a command at SIGTERM or Ctrl-C; SIGTERM lets a training finish its iteration.

An exception in the middle of an iteration could be caught by what runs there. So while
a training loop runs, the handler of SIGTERM only notes the signal, and
:class:`StopHook` raises after the iteration.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner


class StopSignals:
    """The handler of SIGTERM and Ctrl-C while a command runs.

    Attributes:
        asked (int, optional): The number of the signal that came. Its exception may
            have been caught by the code that ran, as by MMEngine's copy of its message
            hub.
        waits (bool): Whether SIGTERM is only noted here, for :class:`StopHook`.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.waits = False
        self._process = os.getpid()

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal: note it, and raise an exception unless it has to wait.

        Args:
            number (int): The signal.
            frame (FrameType, optional): Not used: Python passes the interrupted frame.

        Raises:
            KeyboardInterrupt: At Ctrl-C, and at SIGTERM unless it waits. Its argument
                is the signal's number.
        """
        # A forked worker of a dataloader inherits this handler. It has nothing to save.
        if os.getpid() != self._process and number == signal.SIGTERM:
            os._exit(128 + number)
        self.asked = number
        if number == signal.SIGINT or not self.waits:
            raise KeyboardInterrupt(number)


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Install :class:`StopSignals` for SIGTERM and Ctrl-C within this context.

    Where Ctrl-C is ignored, it stays so.
    """
    handler = StopSignals()
    before: dict[signal.Signals, Any] = {}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, handler)
    # A shell lets its background jobs ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def current_signals() -> StopSignals:
    """Return the installed :class:`StopSignals`, or a new one that no signal reaches.

    None is installed where no command of ours runs, as in a notebook.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, StopSignals):
        return handler
    return StopSignals()


def signal_behind(error: BaseException) -> signal.Signals | None:
    """Return the signal whose exception is among an error's causes, or None.

    A library may catch a signal's exception and raise another one, as MMEngine does
    while it formats a config ("Failed to format the config file").
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return signal.SIGTERM if signal.SIGTERM in cause.args else signal.SIGINT
        cause = cause.__cause__ or cause.__context__
    return None


class StopHook(Hook):  # type: ignore[misc]
    """End a run at SIGTERM, after the iteration or the epoch and its checkpoint.

    So does Ctrl-C if what ran in the iteration has caught its exception.
    """

    priority = 'LOWEST'

    def after_run(self, runner: Runner) -> None:
        """Let SIGTERM raise its exception at once again, after the training."""
        current_signals().waits = False

    def _after_iter(self, *args: Any, **kwargs: Any) -> None:
        """End the run after an iteration of training, validation or test."""
        self._raise_if_asked()

    def _after_epoch(self, *args: Any, **kwargs: Any) -> None:
        """End the run after an epoch of training, validation or test."""
        self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        """End the run if a signal came.

        Raises:
            KeyboardInterrupt: Its argument is the signal's number.
        """
        asked = current_signals().asked
        if asked is not None:
            raise KeyboardInterrupt(asked)
