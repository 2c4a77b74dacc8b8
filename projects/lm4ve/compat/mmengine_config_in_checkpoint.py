"""MMEngine executes the config that a checkpoint holds, as Python.

True of MMEngine 0.10.7 (no upstream issue). ``Runner.resume`` and
``FlexibleRunner.resume`` look for ``gpu_ids`` in ``meta['config']``, which MMCV wrote and
MMEngine does not. An inferencer without a model takes the config from ``meta['cfg']``.
May go once neither happens.
"""

import inspect
from types import ModuleType
from typing import Any

import wrapt

from lm4ve.errors import UserError


def is_needed(module: ModuleType) -> bool:
    """Return whether a module still executes a config.

    Args:
        module (ModuleType): ``mmengine.runner.runner``, ``mmengine.runner._flexible_runner``
            or ``mmengine.infer.infer``.
    """
    return 'Config.fromstring(' in inspect.getsource(module)


class _WithoutCode(wrapt.ObjectProxy):
    """The module ``mmengine``, with a config that says nothing."""

    class Config:
        @staticmethod
        def fromstring(*_: Any, **__: Any) -> dict[str, Any]:
            return {}


def repair(module: ModuleType) -> None:
    """Keep a module from executing the text of a checkpoint."""
    if hasattr(module, 'mmengine'):
        module.mmengine = _WithoutCode(module.mmengine)
    else:
        wrapt.wrap_function_wrapper(module, 'BaseInferencer._init_model', _refuse)


def _refuse(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
    cfg = kwargs['cfg'] if 'cfg' in kwargs else args[0]
    if not cfg:
        raise UserError(
            "The inferencer was given no model, so it would execute the checkpoint's config as "
            "Python code. Fix: give the model's config file, or its name, as model=."
        )
    return wrapped(*args, **kwargs)
