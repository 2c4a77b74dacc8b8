"""The hosts' inferencers score whatever part of a checkpoint happens to fit the model.

True of MMEngine 0.10.7, mmpretrain 1.2.0 and mmaction2 1.2.0 (no upstream issue): they
load without ``strict``, and what does not fit is one line of the log. May go once they
refuse such a file or can be told to.

Only models of ours are checked: the config imports lm4ve, or the model holds a module of
it. A config whose ``WholeCheckpointHook`` has ``allow_partial=True`` is left alone.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import wrapt

#: Where the check is: above this folder, so that it is imported when it is needed.
_CHECK = 'lm4ve.runner.checkpoint_files'


def is_needed(module: ModuleType) -> bool:
    """Return whether a module still loads what fits.

    Args:
        module (ModuleType): ``mmengine.infer.infer``, ``mmpretrain.apis.base``,
            ``mmpretrain.apis.model`` or ``mmaction.apis.inference``.
    """
    text = inspect.getsource(module)
    return 'strict' not in text and '_checkpoint' in text


def repair(module: ModuleType) -> None:
    """Let the functions of a module that load a checkpoint refuse one that does not fit."""
    if module.__name__ == 'mmengine.infer.infer':
        place = 'BaseInferencer._load_weights_to_model'
        wrapt.wrap_function_wrapper(module, place, _load_weights)
    elif module.__name__ == 'mmpretrain.apis.model':
        # It looks the function up there in each call; other callers are let through.
        runner = import_module('mmengine.runner')
        runner.load_checkpoint = _checked(runner.load_checkpoint, module)  # type: ignore[attr-defined]
    else:
        module.load_checkpoint = _checked(module.load_checkpoint, module)


def _checked(load: Callable[..., Any], module: ModuleType) -> Callable[..., Any]:

    @functools.wraps(load)
    def wrapper(model: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
        checkpoint = load(model, filename, *args, **kwargs)
        caller = sys._getframe(1)
        if caller.f_globals is module.__dict__:
            cfg = caller.f_locals.get('config') or getattr(model, '_config', None)
            _check(model, checkpoint, cfg, f"'{filename}'")
        return checkpoint

    return wrapper


def _load_weights(wrapped: Any, _: Any, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)

    def check(model: Any, checkpoint: Any, cfg: Any) -> None:
        if checkpoint is not None:
            _check(model, checkpoint, cfg, 'The checkpoint given')

    check(*args, **kwargs)


def _check(model: Any, checkpoint: dict[str, Any], cfg: Any, origin: str) -> None:
    """Refuse a checkpoint that does not fit a model of ours.

    Raises:
        UserError: There is no state of a model in it.
        CheckpointError: Tensors are missing, unknown or of another shape.
    """
    cfg = cfg or {}
    names = (cfg.get('custom_imports') or {}).get('imports') or ()
    ours = [names] if isinstance(names, str) else list(names)
    ours += [type(m).__module__ for m in model.modules()]
    hook = (cfg.get('default_hooks') or {}).get('whole_checkpoint') or {}
    if hook.get('allow_partial') or not any(n.partition('.')[0] == 'lm4ve' for n in ours):
        return
    files = import_module(_CHECK)
    files.load_strictly(model, files.select_state(checkpoint, origin=origin), origin)
