"""Repairs of mmpretrain 1.2.0, and of the inferencers that it shares with its neighbors."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

from lm4ve.compat.repairs import repairs, source_of
from lm4ve.errors import UserError

_TRANSFORMERS = 'transformers.modeling_utils'
_USED = re.compile(rf'from {re.escape(_TRANSFORMERS)} import \(?([\w\s,]+)\)?')
#: Where the check of a checkpoint is: above this folder, so imported when it is needed.
_CHECK = 'lm4ve.runner.checkpoint_files'


def lacks_names(file: Path) -> bool:
    """Return whether a file imports names from ``transformers`` that do not exist.

    Both are read as text: importing either would cost seconds.
    """
    spec = util.find_spec(_TRANSFORMERS)
    if not file.is_file() or spec is None or not spec.origin:
        return False
    used = _USED.search(file.read_text(encoding='utf-8'))
    there = set(re.findall(r'\w+', Path(spec.origin).read_text(encoding='utf-8')))
    return any(n not in there for n in re.findall(r'\w+', used[1] if used else ''))


def _blip_fails(dependency: Any) -> bool:
    models = Path(dependency.__file__).parents[1] / 'models/multimodal'
    return lacks_names(models / 'blip/language_model.py')


@repairs('mmpretrain.utils.dependency', _blip_fails)
def import_without_blip(dependency: Any) -> None:
    """mmpretrain's multimodal models do not import with current ``transformers``.

    Broken in mmpretrain 1.2.0 (not reported upstream) with transformers >= 4.48: wherever
    pycocotools is installed, as mmdetection installs it, BLIP imports functions that no longer
    exist, and ``import mmpretrain.models`` ends in "TypeError: NoneType takes no arguments".
    mmpretrain's own switch for machines without pycocotools leaves those models out. May go
    once BLIP imports.
    """
    if getattr(dependency, 'WITH_MULTIMODAL', False) and _blip_fails(dependency):
        dependency.WITH_MULTIMODAL = False
        dependency.register_multimodal_placeholder = _register_refusals


def _register_refusals(names: Iterable[str], registry: Any) -> None:
    """Register the reason why a type is missing; mmpretrain's names an installed package."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ImportError('mmpretrain: this model does not import with transformers>=4.48.')

    for name in names:
        registry.register_module(name=name, module=functools.partial(refuse))


@repairs(
    'mmpretrain.models.classifiers.hugging_face',
    lambda m: 'neck' not in inspect.signature(m.HuggingFaceClassifier.__init__).parameters,
)
def refuse_unbuilt_neck(hugging_face: ModuleType) -> None:
    """mmpretrain's ``HuggingFaceClassifier`` drops a neck.

    Broken in mmpretrain 1.2.0 (not reported upstream): unknown arguments go to
    ``AutoConfig.from_pretrained``, which ignores them, so that a model with ``neck=`` trains
    without it. May go once the class refuses a neck.
    """

    @wrapt.patch_function_wrapper(hugging_face, 'HuggingFaceClassifier.__init__')
    def _(original: Any, _: Any, args: Any, kwargs: Any) -> None:
        if kwargs.get('neck') is not None:
            raise UserError("model.neck: HuggingFaceClassifier builds no neck. Fix: type="
                            "'mmpretrain.ImageClassifier'.")  # fmt: skip
        original(*args, **kwargs)


def _loads_what_fits(module: Any) -> bool:
    text = source_of(module)
    return 'strict' not in text and '_checkpoint' in text


@repairs('mmaction.apis.inference', _loads_what_fits)
@repairs('mmpretrain.apis.base', _loads_what_fits)
@repairs('mmpretrain.apis.model', _loads_what_fits)
@repairs('mmengine.infer.infer', _loads_what_fits)
def infer_from_whole_checkpoints(module: Any) -> None:
    """The hosts' inferencers score whatever part of a checkpoint fits the model.

    True of MMEngine 0.10.7, mmpretrain 1.2.0 and mmaction2 1.2.0 (no upstream issue): they load
    without ``strict``, and what does not fit is one line of the log. May go once they refuse
    such a file. Only models of ours are checked: the config imports lm4ve, or the model has a
    module of it; ``allow_partial=True`` of the config's ``WholeCheckpointHook`` is obeyed.
    """
    if module.__name__ == 'mmengine.infer.infer':
        wrapt.wrap_function_wrapper(module, 'BaseInferencer._load_weights_to_model', _load_weights)
    elif module.__name__ == 'mmpretrain.apis.model':
        # It looks the function up there in each call; other callers are let through.
        runner: Any = import_module('mmengine.runner')
        runner.load_checkpoint = _checked(runner.load_checkpoint, module)
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
    model, checkpoint, cfg = inspect.signature(wrapped).bind(*args, **kwargs).arguments.values()
    if checkpoint is not None:
        _check(model, checkpoint, cfg, 'The checkpoint given')


def _check(model: Any, checkpoint: dict[str, Any], cfg: Any, origin: str) -> None:
    """Refuse a checkpoint that does not fit a model of ours.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape.
    """
    cfg = cfg or {}
    names = (cfg.get('custom_imports') or {}).get('imports') or ()
    ours = [names] if isinstance(names, str) else list(names)
    ours += [type(m).__module__ for m in model.modules()]
    hook = (cfg.get('default_hooks') or {}).get('whole_checkpoint') or {}
    if hook.get('allow_partial') or not any(n.partition('.')[0] == 'lm4ve' for n in ours):
        return
    files: Any = import_module(_CHECK)
    files.load_strictly(model, files.select_state(checkpoint, origin=origin), origin)
