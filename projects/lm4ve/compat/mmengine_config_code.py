"""Keep MMEngine from executing the config that is stored in a checkpoint."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import wrapt

from lm4ve.errors import UserError


def resume_without_code(module: Any) -> None:
    """Let a runner resume without parsing the config that a checkpoint stores.

    Broken in MMEngine 0.10.7 (no upstream issue): both runners pass ``meta['config']``
    to ``Config.fromstring``, which executes it as Python. They look for ``gpu_ids``,
    which MMCV wrote and MMEngine does not. May go once they no longer do so.

    Args:
        module (ModuleType): The module of a runner, which refers to MMEngine as
            ``mmengine``. That name is replaced by a copy of MMEngine's namespace with
            another ``Config``.
    """
    without_config = ModuleType('mmengine')
    without_config.__dict__.update(vars(module.mmengine))
    without_config.Config = SimpleNamespace(fromstring=_read_nothing)  # type: ignore[attr-defined]
    module.mmengine = without_config


def _read_nothing(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Take the place of ``Config.fromstring``: return an empty config, without ``gpu_ids``."""
    return {}


def infer_without_code(inferencer: Any) -> None:
    """Let an inferencer refuse to take its model's config from a checkpoint.

    Broken in MMEngine 0.10.7 (no upstream issue): an inferencer that is built with
    weights and without a model executes ``meta['cfg']`` of the checkpoint as Python. May
    go once it does not.
    """
    wrapt.wrap_function_wrapper(inferencer, '_init_model', _init_model_of_config)


def _init_model_of_config(
    init: Callable[..., Any], inferencer: Any, args: Any, kwargs: Any
) -> Any:
    """Build an inferencer's model by MMEngine's ``init``, from a config that is not empty.

    Raises:
        UserError: There is no config but the one in the checkpoint.
    """
    cfg = kwargs['cfg'] if 'cfg' in kwargs else args[0]
    if not cfg:
        raise UserError(
            "The checkpoint's config is Python code and is not run. Fix: give the model's "
            'config file, or its name, as model=.'
        )
    return init(*args, **kwargs)
