"""Repairs of mmpretrain 1.2.0, and of the inference that mmaction2 copied from it."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import mmengine.runner
import wrapt

from lm4ve.compat.for_mmengine import check_checkpoint
from lm4ve.errors import UserError


def import_without_blip(dependency: Any) -> None:
    """mmpretrain's multimodal models do not import with current ``transformers``.

    Broken in mmpretrain 1.2.0 (not reported upstream) with transformers >= 4.48: wherever
    pycocotools is installed, as mmdetection installs it, BLIP imports functions that no longer
    exist, and ``import mmpretrain.models`` ends in "TypeError: NoneType takes no arguments".
    mmpretrain's own switch for machines without pycocotools leaves those models out. May go
    once BLIP imports.
    """
    dependency.WITH_MULTIMODAL = False


def refuse_unbuilt_neck(classifiers: ModuleType) -> None:
    """mmpretrain's ``HuggingFaceClassifier`` and ``TimmClassifier`` build no neck.

    Broken in mmpretrain 1.2.0 (not reported upstream): unknown arguments go to
    ``AutoConfig.from_pretrained``, which ignores them, so that a model with ``neck=`` trains
    without it, or to timm, which raises a ``TypeError``. May go once the classes refuse a neck.
    """
    names = {'HuggingFaceClassifier', 'TimmClassifier'} & {*vars(classifiers)}

    @wrapt.patch_function_wrapper(classifiers, f'{names.pop()}.__init__')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> None:
        if kwargs.get('neck') is not None:
            raise UserError(f'model.neck: {type(model).__name__} builds no neck. Fix: lm4ve.wrap.')
        original(*args, **kwargs)


def load_plain_encoders(image: ModuleType) -> None:
    """An ``ImageClassifier`` drops the final norm of a plain encoder's checkpoint.

    True of mmpretrain 1.2.0 (no upstream issue): the neck has no say in what its host loads. May
    go once a host hands the tensors that its backbone lacks to its neck.
    """

    @wrapt.patch_function_wrapper(image, 'ImageClassifier.__init__')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> None:
        original(*args, **kwargs)
        import_module('lm4ve.necks.joining').join(model)  # above this folder


def load_whole_checkpoints(apis: ModuleType) -> None:
    """The functions of ``apis`` score whatever part of a checkpoint fits the model.

    True of mmpretrain 1.2.0 and mmaction2 1.2.0 (no upstream issue): they load without
    ``strict``, and what does not fit is one line of the log. May go once they refuse such a file.
    """
    # mmpretrain.apis.model looks the function up in each call; other callers are let through.
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
