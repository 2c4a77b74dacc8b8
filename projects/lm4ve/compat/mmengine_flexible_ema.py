"""MMEngine's FlexibleRunner cannot load a checkpoint where there is an ``EMAHook``.

True of MMEngine 0.10.7 (no upstream issue): the hook makes its average in ``before_run``,
and reads the checkpoint's in ``after_load_checkpoint``. The Runner calls them in this
order, the FlexibleRunner in the other, which ends in an AttributeError. May go once the
FlexibleRunner loads after ``before_run``.
"""

import inspect
from types import ModuleType
from typing import Any

import wrapt


def is_needed(flexible: ModuleType) -> bool:
    """Return whether the runner still loads first.

    Args:
        flexible (ModuleType): ``mmengine.runner._flexible_runner``.
    """
    text = inspect.getsource(flexible.FlexibleRunner.train)
    return text.index('self.load_or_resume()') < text.index("self.call_hook('before_run')")


def repair(flexible: ModuleType) -> None:
    """Let every ``EMAHook`` make its average before the runner loads, and only then."""
    from mmengine.hooks import EMAHook

    @wrapt.patch_function_wrapper(flexible, 'FlexibleRunner.load_or_resume')
    def _(wrapped: Any, runner: Any, args: Any, kwargs: Any) -> Any:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_run(runner)
                # On the instance, for the one call that is still to come.
                hook.before_run = lambda _, hook=hook: hook.__dict__.pop('before_run', None)
        return wrapped(*args, **kwargs)
