"""The calls of a host's modules that run now: the place of a block, and those around it.

A host passes to its own layers which tokens are padding, by an argument of its forward
call. A block that a hook puts between them gets none of those arguments. So the calls
of the modules around its place are noted while they run, and ``host_masks.py`` looks
for the mask in them.
"""

import inspect
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

#: The calls that run now, each thread's own: DataParallel runs replicas in threads.
_running = threading.local()


class Signature(NamedTuple):
    """The arguments of a module's forward call.

    Attributes:
        kind (str): The name of the module's class, for messages.
        positional (list[str]): Names of positional arguments, in order.
        names (set[str]): Names of all arguments but ``*args`` and ``**kwargs``.
        rest (str, optional): The name of ``*args``, if there are any.
        takes_others (bool): Whether there is a ``**kwargs``.
    """

    kind: str
    positional: list[str]
    names: set[str]
    rest: str | None
    takes_others: bool

    @classmethod
    def of(cls, module: nn.Module) -> 'Signature':
        """Return the signature of a module."""
        positional = []
        names = set()
        rest = None
        takes_others = False
        for parameter in _parameters_of(module):
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_others = True
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                rest = parameter.name
                continue
            names.add(parameter.name)
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(parameter.name)
        return cls(type(module).__name__, positional, names, rest, takes_others)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments by name, and what they hold if they are batches.

        A batch is a dict, a named tuple, or an object with attributes. A name that stands
        in several of them has a list of its values.
        """
        given = dict(zip(self.positional, args, strict=False))
        others = args[len(self.positional) :]
        if others and self.rest is not None:
            given[self.rest] = others
        given.update(kwargs)
        for value in list(given.values()):
            _add_entries(given, value)
        return given


def _parameters_of(module: nn.Module) -> list[inspect.Parameter]:
    """Return a module's parameters; none where Python cannot see them (TorchScript)."""
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _add_entries(given: dict[str, Any], value: Any) -> None:
    """Add to ``given`` what a batch holds, and what the dicts in it hold."""
    for name, entry in _entries_of(value).items():
        before = given.get(name)
        if before is None or before is entry:
            given[name] = entry
        else:
            given[name] = [before, entry]
        if isinstance(entry, Mapping):
            _add_entries(given, entry)


def _entries_of(value: Any) -> Mapping[str, Any]:
    """Return what a batch holds by name; nothing if an argument is no batch."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (Tensor, nn.Module)):
        return {}
    if hasattr(value, '_asdict'):  # of a named tuple
        named: Mapping[str, Any] = value._asdict()
        return named
    attributes = getattr(value, '__dict__', None) or {}
    return {n: entry for n, entry in attributes.items() if isinstance(entry, Tensor)}


class Call(NamedTuple):
    """A call of a module that runs now.

    Attributes:
        key: The key of the place for which it is noted.
        name (str): The name of the module in the encoder; '' is the encoder itself.
        signature (Signature): The signature of the module.
        given (dict): The arguments by name.
    """

    key: Any
    name: str
    signature: Signature
    given: dict[str, Any]


class NotedCalls:
    """Hooks on a module around a place, which note its calls while they run.

    Args:
        place (ThroughNeck): It has the key of the place, which another place, or a
            copy, does not share.
        name (str): The name of the module in the encoder; '' is the encoder itself.
        signature (Signature): The signature of the module.
    """

    def __init__(self, place: Any, name: str, signature: Signature) -> None:
        self.place = place
        self.name = name
        self.signature = signature

    def attach(self, module: nn.Module) -> None:
        """Add the hooks to the module."""
        module.register_forward_pre_hook(self.enter, with_kwargs=True)
        module.register_forward_hook(self.leave, always_call=True)

    def enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note a call as the innermost one; torch calls it before the module runs."""
        given = self.signature.bind(args, kwargs)
        _calls().append(Call(self.place.key, self.name, self.signature, given))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget the call, after it has returned or raised.

        If another hook raised before the call was noted, there is none to forget, and
        the innermost one belongs to another module.
        """
        calls = _calls()
        if not calls:
            return
        last = calls[-1]
        if last.key is self.place.key and last.name == self.name:
            calls.pop()


def running_calls(key: Any) -> list[Call]:
    """Return the calls that run now around the place of a key, the innermost first."""
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
