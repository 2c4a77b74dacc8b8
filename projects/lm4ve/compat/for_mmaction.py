"""Repairs of mmaction2 1.2.0."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import wrapt
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from lm4ve.errors import UserError

_DRN = 'mmaction.models.localizers.drn'
_WITHOUT_NECK = ('RecognizerAudio', 'RecognizerGCN', 'MMRecognizer3D')


def import_without_missing_parts(registry: Any) -> None:
    """``import mmaction.models`` fails at a folder and at functions that do not exist.

    Broken in mmaction2 1.2.0: its wheel lacks ``mmaction/models/localizers/drn``
    (mmaction2 issue 2714, open), and VindLU imports functions that transformers >= 4.48
    lacks (not reported upstream). mmaction2's own switch for machines without
    ``transformers`` leaves VindLU out. May go once the lowest supported wheel has the
    folder and VindLU imports.
    """
    if not (Path(registry.__file__).parent / 'models/localizers/drn').is_dir():
        for name in (_DRN, f'{_DRN}.drn'):
            sys.modules[name] = ModuleType(name)
        sys.modules[f'{_DRN}.drn'].DRN = type('DRN', (), {})  # type: ignore[attr-defined]
    dependency: Any = import_module('mmaction.utils.dependency')
    dependency.WITH_MULTIMODAL = False


def drop_unused_norm(encoder: Any) -> None:
    """VideoMAE's ViT keeps a norm that it does not use when it gives its map.

    Broken in mmaction2 1.2.0 (not reported upstream): with ``return_feat_map=True`` it
    returns before ``fc_norm``, whose missing gradient stops DDP at the second
    iteration. May go once the class builds ``fc_norm`` only where it is used.
    """

    @wrapt.patch_function_wrapper(encoder, '__init__')
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
                raise ValueError(
                    f'Two necks of a sequence have a loss named {sorted(twice)}.'
                )
            losses.update(more)
        return x, losses


def build_recognizers(recognizer: Any) -> None:
    """mmaction2's recognizers do not build or call every part that a config may have.

    Broken in mmaction2 1.2.0 (not reported upstream):

    - Recognizers name their preprocessor without a scope: built outside of 'mmaction'
      they fail with a ``KeyError``.
    - ``neck=[...]`` becomes a plain sequence, which takes no ``data_samples`` and hands
      ``(features, losses)`` of one neck to the next.
    - ``RecognizerGCN``, ``RecognizerAudio`` and ``MMRecognizer3D`` build ``neck=`` and
      never call it, so that a block in it would do nothing.
    - A plain encoder's final norm belongs to our neck (see ``lm4ve/necks/joining.py``).

    May go once ``BaseRecognizer`` builds its parts by mmaction2's registry and calls
    each neck.
    """

    @wrapt.patch_function_wrapper(recognizer, '__init__')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> None:
        with DefaultScope.overwrite_default_scope('mmaction'):
            original(*args, **kwargs)
        neck = getattr(model, 'neck', None)
        if isinstance(neck, nn.Sequential) and not isinstance(neck, NeckSequence):
            model.neck = NeckSequence(*neck)
        host = type(model).extract_feat.__qualname__.partition('.')[0]
        parts = (
            model.neck.modules() if host in _WITHOUT_NECK and model.with_neck else ()
        )
        if any(type(m).__name__ == 'LLMBlockNeck' for m in parts):
            raise UserError(
                f'model.neck: {host} never calls its neck. Fix: LLMBlockInsert.'
            )
        import_module('lm4ve.necks.joining').join(model)  # above this folder


def accept_one_map(recognizer: Any) -> None:
    """mmaction2's ``Recognizer2D`` takes a single map before a neck for several.

    Broken in mmaction2 1.2.0 (not reported upstream): ``extract_feat`` iterates over
    what the backbone gives, so that of one map the samples become maps; and
    ``max_testing_views`` asks ``backbone.get``, which no module has. Both end in errors
    of shapes far from their cause. May go once one map may come before a neck.
    """

    @wrapt.patch_function_wrapper(recognizer, 'extract_feat')
    def _(original: Any, model: Any, args: Any, kwargs: Any) -> tuple:
        stage = kwargs.get('stage', args[1] if len(args) > 1 else 'neck')
        neck = type(getattr(model, 'neck', None)).__name__
        if stage == 'backbone' or neck != 'LLMBlockNeck':
            return original(*args, **kwargs)
        return extract_feat(model, original, *args, **kwargs)


def extract_feat(
    model: Any,
    of_backbone: Callable[..., tuple],
    inputs: Tensor,
    stage: str = 'neck',
    data_samples: list | None = None,
    test_mode: bool = False,
) -> tuple:
    """Extract features of a stage of a 2D recognizer whose neck takes and gives one map.

    Args:
        model (Recognizer2D): With ``frames_per_clip`` (1 without it), the number of
            successive frames that its neck gets as one clip.
        of_backbone (Callable): The host's ``extract_feat``.
        inputs (Tensor): Frames ``[B, V, C, H, W]``, V crops times segments.
        stage (str): 'backbone', 'neck' or 'head'.
        data_samples (list, optional): Passed to the neck in training.
        test_mode (bool): Obey ``test_cfg``.

    Returns:
        tuple[Tensor, dict]: Maps ``[B * V, C', H', W']`` (or logits for 'head') and the
        head's arguments.

    Raises:
        UserError: Frames do not make whole clips.
    """
    test_cfg = (test_mode and model.test_cfg) or {}
    views = inputs.shape[1]
    frames = inputs.flatten(0, 1)
    at_once = test_cfg.get('max_testing_views') or len(frames)
    size = getattr(model, 'frames_per_clip', 1)
    if model.with_neck and (views % size or at_once % size):
        raise UserError(
            f'The number of frames ({views}) and test_cfg.max_testing_views ({at_once}) must be '
            f'multiples of frames_per_clip={size}.'
        )
    feats, losses = [], {}
    for part in frames.split(at_once):
        x, _ = of_backbone(part[None], stage='backbone')
        if isinstance(x, (tuple, list)):
            x = model.neck.pick(x) if model.with_neck else x[-1]
        if stage != 'backbone' and model.with_neck:
            x, losses = _through_neck(model.neck, x, size, data_samples)
        feats.append(x)
    x = torch.cat(feats)
    arguments: dict[str, Any] = dict(num_segs=views * len(x) // len(frames))
    if test_mode:
        arguments['fcn_test'] = bool(test_cfg.get('fcn_test', False))
    if stage == 'backbone':
        return x, arguments
    if arguments.get('fcn_test'):
        segments = test_cfg.get('num_segs') or model.backbone.num_segments
        x = x.unflatten(0, (-1, segments)).transpose(1, 2).contiguous()
    arguments['loss_aux'] = losses
    if stage == 'head' and model.with_cls_head:
        return model.cls_head(x, **arguments), arguments
    return x, arguments


def _through_neck(neck: Any, x: Tensor, size: int, data_samples: list | None) -> tuple:
    """``[N, C, H, W]`` through the neck as clips, and back."""
    clips = x.unflatten(0, (-1, size)).transpose(1, 2)
    out, losses = neck(clips, data_samples=data_samples)
    if out.dim() == 2:  # one vector a clip: a map of one pixel
        return out[..., None, None], losses
    return out.transpose(1, 2).flatten(0, 1), losses
