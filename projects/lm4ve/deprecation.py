"""Old names that still work: each answers once with the name to use instead."""

import argparse
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lm4ve.errors import UserError

_Function = TypeVar('_Function', bound=Callable[..., Any])


def renamed_argument(
    old: str, new: str, values: Mapping[Any, Any] | None = None
) -> Callable[[_Function], _Function]:
    """Let a function or a constructor take an argument under its old name too.

    The decorated callable takes the old name as a keyword only and gives a
    :class:`DeprecationWarning`.

    Args:
        old, new (str): The names.
        values (Mapping, optional): Old value -> new value, where values were
            renamed as well; others are passed on as they are.

    Raises:
        UserError: The call gives both names.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                value = kwargs.pop(old)
                if new in kwargs:
                    raise UserError(
                        f'{old}={value!r} is the old name of {new}, and both are '
                        f'given. Fix: leave out {old}.'
                    )
                kwargs[new] = (values or {}).get(value, value)
                _warn(f'{old}={value!r}', f'{new}={kwargs[new]!r}')
            return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate


class RenamedOption(argparse.Action):
    """Store an option of a command line; warn if an old name was used.

    Use it as ``parser.add_argument(new, old, ..., action=RenamedOption)``. The first
    of the option's names is the current one.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if option_string and option_string not in self.option_strings[:1]:
            _warn(option_string, self.option_strings[0])
        setattr(namespace, self.dest, values)


class IgnoredOption(argparse.Action):
    """Take an option of a command line that has no effect any more, and warn.

    Use it as ``parser.add_argument(..., action=IgnoredOption, const='why')``; ``const``
    is a sentence that says what happens instead.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        warn_ignored(str(option_string), str(self.const))


def warn_ignored(name: str, instead: str) -> None:
    """Warn that an option or an argument has no effect any more.

    Args:
        name (str): The option or argument, as the caller wrote it.
        instead (str): A sentence that says what happens instead.
    """
    # The second caller up is the code that uses it.
    text = f'{name} is deprecated and has no effect. {instead}'
    warnings.warn(text, DeprecationWarning, stacklevel=3)


def _warn(old: str, new: str) -> None:
    # The third caller up is the code that uses the old name.
    warnings.warn(f'{old} is deprecated. Use {new} instead.', DeprecationWarning, stacklevel=3)
