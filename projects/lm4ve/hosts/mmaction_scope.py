"""mmaction2's recognizers find their parts only in the default scope 'mmaction'.

They name their data preprocessor without a scope and let MMEngine's root
registry build it, which knows no such class. Built in another scope, or in
none, a recognizer fails with a ``KeyError``.
"""
from functools import wraps

from mmengine.registry import DefaultScope


def build_in_own_scope(recognizer: type) -> None:
    """Let a recognizer build its parts in mmaction2's scope, whatever is set.

    Args:
        recognizer (type): mmaction2's ``BaseRecognizer``.
    """
    original = recognizer.__init__
    if getattr(original, '_lm4ve', False):
        return

    @wraps(original)
    def __init__(self, *args, **kwargs) -> None:
        with DefaultScope.overwrite_default_scope('mmaction'):
            original(self, *args, **kwargs)

    __init__._lm4ve = True
    recognizer.__init__ = __init__
