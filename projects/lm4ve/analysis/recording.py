"""Records what modules of a model get and give in one forward pass."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn


class RecordedCall(NamedTuple):
    """The last call of a module: its arguments by name, and its output."""

    arguments: dict[str, Any]
    output: Any

    @property
    def input(self) -> Any:
        """The first argument."""
        return next(iter(self.arguments.values()))


#: Module -> its last call, in the order of running.
Calls = dict[nn.Module, RecordedCall]


@contextmanager
def record_calls(modules: Iterable[nn.Module]) -> Iterator[Calls]:
    """Record the last call of each module inside the context.

    Yields:
        Calls: Module -> its last call, filled while the model runs. A module that does
        not run is missing.
    """
    calls: Calls = {}

    def record(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        # A module that runs again moves to the end: the order is that of the last calls.
        calls.pop(module, None)
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        calls[module] = RecordedCall(bound.arguments, output)

    handles = [m.register_forward_hook(record, with_kwargs=True) for m in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode inside the context, and let it run all views at once.

    Afterwards each module is in its own mode again, and ``test_cfg`` is as before.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    test_cfg = getattr(model, 'test_cfg', None)
    if test_cfg and 'max_testing_views' in test_cfg:
        # Views that run in several parts would leave the activations of the last part.
        without_parts = dict(test_cfg)
        del without_parts['max_testing_views']
        model.test_cfg = without_parts
    try:
        yield
    finally:
        if test_cfg is not None:
            model.test_cfg = test_cfg
        for module, mode in modes.items():
            module.training = mode
