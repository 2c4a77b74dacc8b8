"""Repairs of mmaction2 1.2.0."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt
from mmengine.registry import DefaultScope
from torch import nn

from lm4ve.compat.for_mmpretrain import lacks_names
from lm4ve.compat.repairs import repairs, source_of
from lm4ve.errors import UserError

_DRN = 'mmaction.models.localizers.drn'
_WITHOUT_NECK = ('RecognizerAudio', 'RecognizerGCN', 'MMRecognizer3D')


def _folder(module: Any) -> Path:
    return Path(module.__file__).parent


@repairs('mmaction.registry', lambda m: not (_folder(m) / 'models/localizers/drn').is_dir())
def import_without_drn(registry: ModuleType) -> None:
    """mmaction2's wheel lacks a folder that its own ``__init__`` imports.

    Broken in mmaction2 1.2.0 (mmaction2 issue 2714, open): ``mmaction/models/localizers/drn``
    was left out, so that ``import mmaction.models`` fails. May go once the lowest supported
    wheel has the folder.
    """
    if not (_folder(registry) / 'models/localizers/drn').is_dir():
        for name in (_DRN, f'{_DRN}.drn'):
            sys.modules[name] = ModuleType(name)
        sys.modules[f'{_DRN}.drn'].DRN = type('DRN', (), {})  # type: ignore[attr-defined]


@repairs(
    'mmaction.registry',
    lambda m: lacks_names(_folder(m) / 'models/multimodal/vindlu/modeling_bert.py'),
)
def import_without_vindlu(registry: ModuleType) -> None:
    """mmaction2's multimodal models do not import with current ``transformers``.

    Broken in mmaction2 1.2.0 (not reported upstream) with transformers >= 4.48: VindLU imports
    functions that no longer exist, so that ``import mmaction.models`` fails. mmaction2's own
    switch for machines without ``transformers`` leaves it out. May go once VindLU imports.
    """
    dependency: Any = importlib.import_module('mmaction.utils.dependency')
    if lacks_names(_folder(registry) / 'models/multimodal/vindlu/modeling_bert.py'):
        dependency.WITH_MULTIMODAL = False


@repairs(
    'mmaction.models.backbones.vit_mae',
    lambda m: 'not return_feat_map' not in source_of(m.VisionTransformer.__init__),
)
def drop_unused_norm(vit_mae: ModuleType) -> None:
    """VideoMAE's ViT keeps a norm that it does not use when it gives its map.

    Broken in mmaction2 1.2.0 (not reported upstream): with ``return_feat_map=True`` it returns
    before ``fc_norm``, whose missing gradient stops DDP at the second iteration. May go once
    the class builds ``fc_norm`` only where it is used.
    """

    @wrapt.patch_function_wrapper(vit_mae, 'VisionTransformer.__init__')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> None:
        original(*args, **kwargs)
        if model.return_feat_map and getattr(model, 'fc_norm', None) is not None:
            model.fc_norm = None


class NeckSequence(nn.Sequential):
    """Necks in mmaction2's protocol, one after the other; their losses come together."""

    def forward(self, x: Any, data_samples: list | None = None) -> tuple:
        """Run the necks; those of another host get and give features alone."""
        losses: dict = {}
        for neck in self:
            if neck.__module__.startswith(('mmpretrain.', 'torch.')):
                x = neck(x)
                continue
            x, more = neck(x, data_samples=data_samples)
            if twice := losses.keys() & more.keys():
                raise ValueError(f'Two necks of a sequence have a loss named {sorted(twice)}.')
            losses.update(more)
        return x, losses


def _names_preprocessor_without_scope(base: Any) -> bool:
    return "'ActionDataPreprocessor'" in source_of(base.BaseRecognizer.__init__)


@repairs('mmaction.models.recognizers.base', _names_preprocessor_without_scope)
def build_recognizers(base: ModuleType) -> None:
    """mmaction2's recognizers do not build or call every part that a config may have.

    Broken in mmaction2 1.2.0 (not reported upstream):

    - Recognizers name their preprocessor without a scope: built outside of 'mmaction' they fail
      with a ``KeyError``.
    - ``neck=[...]`` becomes a plain sequence, which takes no ``data_samples`` and hands
      ``(features, losses)`` of one neck to the next.
    - ``RecognizerGCN``, ``RecognizerAudio`` and ``MMRecognizer3D`` build ``neck=`` and never
      call it, so that a block in it would do nothing.
    - A plain VideoMAE checkpoint's ``fc_norm`` belongs to our neck's norm, where there is one.

    May go once ``BaseRecognizer`` builds its parts by mmaction2's registry and calls each neck.
    """

    @wrapt.patch_function_wrapper(base, 'BaseRecognizer.__init__')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> None:
        with DefaultScope.overwrite_default_scope('mmaction'):
            original(*args, **kwargs)
        neck = getattr(model, 'neck', None)
        if isinstance(neck, nn.Sequential) and not isinstance(neck, NeckSequence):
            model.neck = NeckSequence(*neck)
        host = type(model).extract_feat.__qualname__.partition('.')[0]
        parts = model.neck.modules() if host in _WITHOUT_NECK and model.with_neck else ()
        if any(type(m).__name__ == 'LLMBlockNeck' for m in parts):
            raise UserError(
                f'model.neck: {host} builds a neck and never calls it. Fix: LLMBlockInsert.'
            )
        # A child sees its own keys only, so the model has to do it.
        model.register_load_state_dict_pre_hook(_move_norm_to_neck)


def _move_norm_to_neck(model: Any, state_dict: dict, prefix: str, *args: Any) -> None:
    norm = getattr(getattr(model, 'neck', None), 'norm', None)
    if norm is None or getattr(model.backbone, 'fc_norm', None) is not None:
        return
    for name in ('weight', 'bias'):
        key = f'{prefix}backbone.fc_norm.{name}'
        if key in state_dict:
            value = state_dict.pop(key)
            state_dict.setdefault(f'{prefix}neck.norm.{name}', value)
