"""The calls of a host's modules that run now, the place of a block and what is around it."""

import threading
from typing import Any, NamedTuple

from lm4ve.necks.host_signature import Signature

#: The calls that run now, each thread's own: DataParallel runs replicas in threads.
_running = threading.local()


class Call(NamedTuple):
    """A call of a module that runs now.

    Attributes:
        key: The key of the hook that noted it.
        signature (Signature): The signature of the module.
        given (dict): The arguments by name.
    """

    key: Any
    signature: Signature
    given: dict[str, Any]


def open_call(call: Call) -> None:
    """Note a call that begins, as the innermost one of this thread."""
    _calls().append(call)


def close_call(key: Any, signature: Signature) -> None:
    """Forget a call that has ended.

    If another hook raised before the call was noted, there is none to forget, and the
    innermost one belongs to another module.

    Args:
        key: The key of the hook that noted it.
        signature (Signature): The signature of the module.
    """
    calls = _calls()
    if not calls:
        return
    last = calls[-1]
    if last.key is key and last.signature is signature:
        calls.pop()


def running_calls(key: Any) -> list[Call]:
    """Return the calls of one hook that run now, the innermost first."""
    noted = [call for call in _calls() if call.key is key]
    noted.reverse()
    return noted


def _calls() -> list[Call]:
    """Return this thread's calls, the outermost first."""
    calls: list[Call] | None = getattr(_running, 'calls', None)
    if calls is None:
        calls = []
        _running.calls = calls
    return calls
