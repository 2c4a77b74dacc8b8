"""The table of repairs, and the decorator that adds one to it."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import wrapt

Function = Callable[[ModuleType], None]


class Repair(NamedTuple):
    """One repair.

    Attributes:
        module (str): The module that is repaired right after its import.
        is_needed (Callable): Whether that module still has the defect.
        function (Callable): The repair, whose docstring names the defect, the versions that
            have it, and when it may go.
    """

    module: str
    is_needed: Callable[[Any], bool]
    function: Function


REPAIRS: list[Repair] = []


def repairs(module: str, is_needed: Callable[[Any], bool]) -> Callable[[Function], Function]:
    """Add the decorated function to the table, for a module that may not be imported yet."""

    def add(function: Function) -> Function:
        REPAIRS.append(Repair(module, is_needed, function))
        return function

    return add


def apply(start: int = 0) -> None:
    """Run the repairs from ``start`` on as soon as their modules are imported."""
    for repair in REPAIRS[start:]:
        wrapt.when_imported(repair.module)(repair.function)


def source_of(function: Any) -> str:
    """Return the source of a function or a module, beneath its wrappers."""
    return inspect.getsource(inspect.unwrap(function))
