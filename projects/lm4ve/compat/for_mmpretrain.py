"""Repairs of mmpretrain 1.2.0, and of the inference that mmaction2 copied from it."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import mmengine.runner
import wrapt

from lm4ve.compat.for_mmengine import check_checkpoint
from lm4ve.errors import UserError

_MMDET_LAYER = 'mmpretrain.models.utils.res_layer_extra_norm'


def import_without_extras(dependency: Any) -> None:
    """mmpretrain imports models of other packages with its own, wherever these are installed.

    True of mmpretrain 1.2.0 (not reported upstream). Where pycocotools is installed, as
    mmdetection installs it, BLIP imports functions that transformers >= 4.48 lacks, and
    ``import mmpretrain.models`` ends in "TypeError: NoneType takes no arguments";
    mmpretrain's own switch for machines without pycocotools leaves those models out.
    For one layer mmpretrain imports all of mmdetection, in a second;
    :func:`import_layer_of_mmdet` adds the layer when mmdetection is imported. May go
    once BLIP imports and the layer is imported where it is used.
    """
    dependency.WITH_MULTIMODAL = False
    if 'mmdet' not in sys.modules:
        stand_in: Any = ModuleType(_MMDET_LAYER)
        stand_in.ResLayerExtraNorm = (
            None  # mmpretrain's value on machines without mmdetection
        )
        sys.modules[_MMDET_LAYER] = stand_in


def import_layer_of_mmdet(_: Any) -> None:
    """mmpretrain 1.2.0 makes its layer of mmdetection only if that was there at its own import.

    The layer that :func:`import_without_extras` left out is put in its place. May go
    with that.
    """
    if getattr(sys.modules.get(_MMDET_LAYER), '__spec__', True) is None:
        del sys.modules[_MMDET_LAYER]
        if (utils := sys.modules.get('mmpretrain.models.utils')) is not None:
            layer: Any = import_module(_MMDET_LAYER)
            utils.ResLayerExtraNorm = layer.ResLayerExtraNorm  # type: ignore[attr-defined]


def refuse_unbuilt_neck(classifier: Any) -> None:
    """mmpretrain's ``HuggingFaceClassifier`` and ``TimmClassifier`` build no neck.

    Broken in mmpretrain 1.2.0 (not reported upstream): unknown arguments go to
    ``AutoConfig.from_pretrained``, which ignores them, so that a model with ``neck=``
    trains without it, or to timm, which raises a ``TypeError``. May go once the classes
    refuse a neck.
    """

    @wrapt.patch_function_wrapper(classifier, '__init__')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> None:
        if kwargs.get('neck') is not None:
            raise UserError(
                f'model.neck: {type(model).__name__} builds no neck. Fix: lm4ve.wrap.'
            )
        original(*args, **kwargs)


def load_plain_encoders(classifier: Any) -> None:
    """An ``ImageClassifier`` drops the final norm of a plain encoder's checkpoint.

    True of mmpretrain 1.2.0 (no upstream issue): the neck takes no part in its host's
    loading. May go once a host hands the tensors that its backbone lacks to its neck.
    """

    @wrapt.patch_function_wrapper(classifier, '__init__')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> None:
        original(*args, **kwargs)
        import_module('lm4ve.necks.joining').join(model)  # above this folder


def load_whole_checkpoints(apis: ModuleType) -> None:
    """The functions of ``apis`` score whatever part of a checkpoint fits the model.

    True of mmpretrain 1.2.0 and mmaction2 1.2.0 (no upstream issue): they load without
    ``strict``, and what does not fit is one line of the log. May go once they refuse
    such a file.
    """
    # mmpretrain.apis.model looks the function up in each call; other callers are let
    # through.
    holder: Any = apis if hasattr(apis, 'load_checkpoint') else mmengine.runner
    load = holder.load_checkpoint

    def load_whole(model: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
        checkpoint = load(model, filename, *args, **kwargs)
        caller = sys._getframe(1)
        if caller.f_globals is apis.__dict__:
            cfg = caller.f_locals.get('config') or getattr(model, '_config', None)
            check_checkpoint(model, checkpoint, cfg, f"'{filename}'")
        return checkpoint

    holder.load_checkpoint = load_whole
