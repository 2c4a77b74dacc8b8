"""Stop a command at SIGTERM and Ctrl-C, a training after its iteration and checkpoint.

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
        asked (int, optional): The signal that came, which what ran then may have
            swallowed: MMEngine copies its message hub so.
        waits (bool): Whether SIGTERM waits for the end of an iteration.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.waits = False
        self._process = os.getpid()

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: At Ctrl-C, and at SIGTERM unless it waits. Its argument
                is the signal's number.
        """
        if os.getpid() != self._process and number == signal.SIGTERM:
            os._exit(128 + number)  # a worker that was forked
        self.asked = number
        if number == signal.SIGINT or not self.waits:
            raise KeyboardInterrupt(number)


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Let SIGTERM, and Ctrl-C where it is not ignored, end what runs inside."""
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
    """Return the handler of the command that runs, or one that no signal reaches."""
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, StopSignals):
        return handler
    return StopSignals()


def signal_behind(error: BaseException) -> signal.Signals | None:
    """Return the signal that began an error, or None.

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
        """Let signals end what comes after the training at once."""
        current_signals().waits = False

    def _after_iter(self, *_: Any, **__: Any) -> None:
        self._raise_if_asked()

    def _after_epoch(self, *_: Any, **__: Any) -> None:
        self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        asked = current_signals().asked
        if asked is not None:
            raise KeyboardInterrupt(asked)
