"""mmaction2's recognizers find their parts only in the default scope 'mmaction'.

Broken in mmaction2 1.2.0 (not reported upstream): recognizers name their data
preprocessor without a scope and let MMEngine's root registry build it, which knows
no such class. Built in another scope, or in none, a recognizer fails with a
``KeyError``. May go once ``BaseRecognizer`` builds its parts by mmaction2's registry.
"""

import inspect
from types import ModuleType

import wrapt
from mmengine.registry import DefaultScope


def is_needed(base: ModuleType) -> bool:
    """Return whether ``BaseRecognizer`` names its preprocessor without a scope."""
    return "'ActionDataPreprocessor'" in inspect.getsource(
        inspect.unwrap(base.BaseRecognizer.__init__)
    )


def repair(base: ModuleType) -> None:
    """Let recognizers build their parts in mmaction2's scope, whatever is set.

    Args:
        base (ModuleType): ``mmaction.models.recognizers.base``.
    """

    @wrapt.patch_function_wrapper(base, 'BaseRecognizer.__init__')
    def _(original, model, args, kwargs) -> None:
        with DefaultScope.overwrite_default_scope('mmaction'):
            original(*args, **kwargs)
