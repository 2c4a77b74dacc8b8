"""MMEngine executes the text of a config that a checkpoint holds."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import wrapt

from lm4ve.errors import UserError


def resume_without_code(module: Any) -> None:
    """Resuming executes ``meta['config']`` of a checkpoint as Python.

    True of MMEngine 0.10.7 (no upstream issue): both runners look for ``gpu_ids``
    there, where MMCV wrote it and MMEngine does not. May go once they do not.
    """
    without_config = ModuleType('mmengine')
    without_config.__dict__.update(vars(module.mmengine))
    without_config.Config = SimpleNamespace(fromstring=_read_nothing)  # type: ignore[attr-defined]
    module.mmengine = without_config


def _read_nothing(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Stand in for ``Config.fromstring``: the text has no ``gpu_ids``."""
    return {}


def infer_without_code(inferencer: Any) -> None:
    """An inferencer without a model executes ``meta['cfg']`` of the checkpoint as Python.

    True of MMEngine 0.10.7 (no upstream issue). May go once it does not.
    """
    wrapt.wrap_function_wrapper(inferencer, '_init_model', _init_model)


def _init_model(init: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    cfg = kwargs['cfg'] if 'cfg' in kwargs else args[0]
    if not cfg:
        raise UserError(
            "The checkpoint's config is Python code and is not run. Fix: give the model's "
            'config file, or its name, as model=.'
        )
    return init(*args, **kwargs)
