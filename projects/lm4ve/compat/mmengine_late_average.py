"""MMEngine's FlexibleRunner loads a checkpoint before its average exists."""

from collections.abc import Callable
from typing import Any

import wrapt
from mmengine.hooks import EMAHook


def average_before_loading(flexible_runner: Any) -> None:
    """The FlexibleRunner cannot load a checkpoint where there is an ``EMAHook``.

    True of MMEngine 0.10.7 (no upstream issue): the hook makes its average in
    ``before_run``, which the Runner calls before it loads and the FlexibleRunner after.
    May go once it loads after ``before_run``.
    """
    wrapt.wrap_function_wrapper(flexible_runner, 'load_or_resume', _load_or_resume)


def _load_or_resume(
    load: Callable[..., Any], runner: Any, args: Any, kwargs: Any
) -> Any:
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.before_run(runner)
            _skip_next_before_run(hook)
    return load(*args, **kwargs)


def _skip_next_before_run(hook: Any) -> None:
    """Let the runner's own call of ``before_run``, which follows, do nothing.

    The function is put on this instance, where it hides the method of the class, and
    removes itself when it is called: a later run needs the method again.
    """

    def do_nothing_once(runner: Any) -> None:
        del hook.before_run

    hook.before_run = do_nothing_once
