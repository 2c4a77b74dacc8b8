"""Repairs of inferencers: refuse a checkpoint that does not fit the model.

They are registered with :mod:`lm4ve.compat` and apply to models of ours only.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import mmengine.runner
import wrapt
from torch import nn

from lm4ve.runner.checkpoint_files import load_strictly, select_state
from lm4ve.runner.trained_config import Use, compare_with_training
from lm4ve.zoo import PACKAGES


def infer_from_whole_checkpoints(inferencer: Any) -> None:
    """Let MMEngine's inferencers refuse a checkpoint that does not fit a model of ours.

    Broken in MMEngine 0.10.7 (no upstream issue): it loads without ``strict``, so that
    the part which fits is scored and the rest is one line of the log. May go once it
    refuses such a file.
    """
    wrapt.wrap_function_wrapper(
        inferencer, '_load_weights_to_model', _load_and_check_weights
    )


def _load_and_check_weights(
    load: Callable[..., None], inferencer: object, args: Any, kwargs: Any
) -> None:
    """Load weights by MMEngine's ``load``, then check that they fit the model.

    Raises:
        CheckpointError: See :func:`check_checkpoint`.
    """
    load(*args, **kwargs)
    arguments = inspect.signature(load).bind(*args, **kwargs).arguments
    if arguments['checkpoint'] is not None:
        check_checkpoint(
            arguments['model'],
            arguments['checkpoint'],
            arguments['cfg'],
            'The checkpoint',
        )


def load_whole_checkpoints(apis: ModuleType) -> None:
    """Let functions such as ``get_model`` refuse a checkpoint that does not fit a model of ours.

    Broken in mmpretrain 1.2.0 and mmaction2 1.2.0 (no upstream issue): they load without
    ``strict``, so that the part which fits is scored and the rest is one line of the
    log. May go once they refuse such a file.

    Args:
        apis (ModuleType): The module of such functions. They call ``load_checkpoint``,
            which is replaced by one that checks.
    """
    if hasattr(apis, 'load_checkpoint'):
        holder: Any = apis
    else:
        # mmpretrain.apis.model looks the function up in MMEngine at each call, as others
        # do. Below, only calls from the module are checked.
        holder = mmengine.runner
    load = holder.load_checkpoint

    def load_whole(model: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
        checkpoint = load(model, filename, *args, **kwargs)
        caller = sys._getframe(1)
        if caller.f_globals is apis.__dict__:
            cfg = caller.f_locals.get('config')
            if not cfg:
                cfg = getattr(model, '_config', None)
            check_checkpoint(model, checkpoint, cfg, f"'{filename}'")
        return checkpoint

    holder.load_checkpoint = load_whole


def check_checkpoint(
    model: nn.Module, checkpoint: dict[str, Any], cfg: Any, origin: str
) -> None:
    """Refuse a checkpoint that does not fit a model of ours.

    ``allow_partial`` and ``strict_config`` of the config's ``WholeCheckpointHook`` are obeyed.

    Args:
        model (nn.Module): The model, into which the checkpoint was loaded.
        checkpoint (dict): What was loaded.
        cfg (Config, optional): The model's config.
        origin (str): The checkpoint's name in the error.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape; or the model was
            trained otherwise, with ``strict_config``.
    """
    if not cfg:
        cfg = {}
    if not _is_ours(model, cfg):
        return
    hooks = cfg.get('default_hooks') or {}
    strict_hook = hooks.get('whole_checkpoint') or {}
    if cfg:
        strict = bool(strict_hook.get('strict_config'))
        compare_with_training(checkpoint, cfg, origin, Use.INFERENCE, strict)
    if not strict_hook.get('allow_partial'):
        load_strictly(model, select_state(checkpoint, origin=origin), origin)


def _is_ours(model: nn.Module, cfg: Mapping[str, Any]) -> bool:
    """Return whether a config imports a package of ours, or a model has a module of it."""
    custom_imports = cfg.get('custom_imports') or {}
    imports = custom_imports.get('imports') or ()
    if isinstance(imports, str):
        imports = [imports]
    names = [*imports]
    for module in model.modules():
        names.append(type(module).__module__)
    return any(name.partition('.')[0] in PACKAGES for name in names)
