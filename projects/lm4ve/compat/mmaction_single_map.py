"""mmaction2's ``Recognizer2D`` takes a single map before a neck for several.

Broken in mmaction2 1.2.0 (not reported upstream): ``extract_feat`` iterates over what the
backbone gives, so that of one map the samples become maps; and ``max_testing_views`` asks
``backbone.get``, which no module has. Both end in errors of shapes far from their cause.
May go once one map may come before a neck.
"""

import inspect
from collections.abc import Callable
from types import ModuleType

import torch
import wrapt
from torch import Tensor

from lm4ve.compat.repairs import repairs, source_of
from lm4ve.errors import UserError


@repairs(
    'mmaction.models.recognizers.recognizer2d',
    lambda m: (
        'for each in x' in (text := source_of(m.Recognizer2D.extract_feat))
        and 'backbone.get(' in text
    ),
)
def take_one_map(recognizer2d: ModuleType) -> None:
    """mmaction2's ``Recognizer2D`` takes a single map before a neck for several.

    Broken in mmaction2 1.2.0 (not reported upstream), as this file's first lines say. May go
    once one map may come before a neck.
    """

    @wrapt.patch_function_wrapper(recognizer2d, 'Recognizer2D.extract_feat')
    def _(original, model, args, kwargs) -> tuple:
        arguments = inspect.signature(original).bind(*args, **kwargs).arguments
        if (
            arguments.get('stage') == 'backbone'
            or type(getattr(model, 'neck', None)).__name__ != 'LLMBlockNeck'
        ):
            return original(*args, **kwargs)
        return extract_feat(model, original, *args, **kwargs)


def extract_feat(
    model,
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
    for name, number in (('The number of frames', views), ('test_cfg.max_testing_views', at_once)):
        if model.with_neck and number % size:
            raise UserError(f'{name} ({number}) is not a multiple of frames_per_clip={size}.')
    feats, losses = [], {}
    for part in frames.split(at_once):
        x, _ = of_backbone(part[None], stage='backbone')
        if isinstance(x, (tuple, list)):
            x = model.neck.pick(x) if model.with_neck else x[-1]
        if stage != 'backbone' and model.with_neck:
            x, losses = _through_neck(model.neck, x, size, data_samples)
        feats.append(x)
    x = torch.cat(feats)
    arguments = dict(num_segs=views * len(x) // len(frames))
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


def _through_neck(neck, x: Tensor, size: int, data_samples: list | None):
    """``[N, C, H, W]`` through the neck as clips, and back."""
    clips = x.unflatten(0, (-1, size)).transpose(1, 2)
    out, losses = neck(clips, data_samples=data_samples)
    if out.dim() == 2:  # one vector a clip: a map of one pixel
        return out[..., None, None], losses
    return out.transpose(1, 2).flatten(0, 1), losses
