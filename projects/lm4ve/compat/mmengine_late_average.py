"""Let MMEngine's FlexibleRunner create its average of the weights before it loads one."""

from collections.abc import Callable
from typing import Any

import wrapt
from mmengine.hooks import EMAHook


def average_before_loading(flexible_runner: Any) -> None:
    """Let a FlexibleRunner with an ``EMAHook`` load checkpoints.

    Broken in MMEngine 0.10.7 (no upstream issue): the hook builds its averaged model in
    ``before_run`` and needs it when a checkpoint is loaded. The Runner calls
    ``before_run`` first; the FlexibleRunner loads first, which fails. May go once it
    loads after ``before_run``.
    """
    wrapt.wrap_function_wrapper(
        flexible_runner, 'load_or_resume', _load_or_resume_with_average
    )


def _load_or_resume_with_average(
    load: Callable[..., Any], runner: Any, args: Any, kwargs: Any
) -> Any:
    """Let EMA hooks build their averaged models, then load by MMEngine's ``load``."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.before_run(runner)
            _skip_next_before_run(hook)
    return load(*args, **kwargs)


def _skip_next_before_run(hook: Any) -> None:
    """Let the next call of a hook's ``before_run`` do nothing, and later calls work again.

    We have called the method, and the runner will call it once more after loading,
    which would build the averaged model anew. A function on this instance hides the
    method of the class, and removes itself when it is called.
    """

    def do_nothing_once(runner: Any) -> None:
        del hook.before_run

    hook.before_run = do_nothing_once
