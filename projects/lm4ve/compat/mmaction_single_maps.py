"""mmaction2's 2D recognizer cannot put one map through a neck."""

from collections.abc import Callable
from typing import Any

import torch
import wrapt
from torch import Tensor

from lm4ve.errors import UserError


def accept_one_map(recognizer: Any) -> None:
    """mmaction2's ``Recognizer2D`` takes a single map before a neck for several.

    Broken in mmaction2 1.2.0 (not reported upstream): ``extract_feat`` iterates over
    what the backbone gives, so that of one map the samples become maps; and
    ``max_testing_views`` asks ``backbone.get``, which no module has. Both end in errors
    of shapes far from their cause. May go once one map may come before a neck.
    """
    wrapt.wrap_function_wrapper(recognizer, 'extract_feat', _extract_feat)


def _extract_feat(
    of_host: Callable[..., tuple], model: Any, args: Any, kwargs: Any
) -> tuple:
    if 'stage' in kwargs:
        stage = kwargs['stage']
    elif len(args) > 1:
        stage = args[1]
    else:
        stage = 'neck'
    has_block = type(getattr(model, 'neck', None)).__name__ == 'LLMBlockNeck'
    if stage == 'backbone' or not has_block:
        return of_host(*args, **kwargs)
    return extract_feat(model, of_host, *args, **kwargs)


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
    test_cfg = {}
    if test_mode and model.test_cfg:
        test_cfg = model.test_cfg
    views = inputs.shape[1]
    frames = inputs.flatten(0, 1)
    frames_at_once = test_cfg.get('max_testing_views') or len(frames)
    through_neck = model.with_neck and stage != 'backbone'
    if model.with_neck:
        _check_clips(model, views, frames_at_once)
    feats = []
    losses: dict = {}
    for part in frames.split(frames_at_once):
        x, _ = of_backbone(part[None], stage='backbone')
        x = _one_map(model, x)
        if through_neck:
            x, losses = _through_neck(model, x, data_samples)
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


def _frames_per_clip(model: Any) -> int:
    return getattr(model, 'frames_per_clip', 1)


def _check_clips(model: Any, views: int, frames_at_once: int) -> None:
    """Check that the frames which the backbone gets at once make whole clips.

    Raises:
        UserError: They do not.
    """
    size = _frames_per_clip(model)
    if views % size == 0 and frames_at_once % size == 0:
        return
    raise UserError(
        f'The number of frames ({views}) and test_cfg.max_testing_views ({frames_at_once}) must be '
        f'multiples of frames_per_clip={size}.'
    )


def _one_map(model: Any, feats: Any) -> Tensor:
    """Return the map that the neck reads, or the last one without a neck."""
    if not isinstance(feats, (tuple, list)):
        return feats
    if model.with_neck:
        return model.neck.pick(feats)
    return feats[-1]


def _through_neck(model: Any, x: Tensor, data_samples: list | None) -> tuple:
    """Put maps ``[N, C, H, W]`` through the neck as clips, and back.

    Returns:
        tuple[Tensor, dict]: Maps, of one pixel and one a clip where the neck gives a
        vector for a clip; and losses.
    """
    clips = x.unflatten(0, (-1, _frames_per_clip(model))).transpose(1, 2)
    out, losses = model.neck(clips, data_samples=data_samples)
    if out.dim() == 2:
        return out[..., None, None], losses
    return out.transpose(1, 2).flatten(0, 1), losses
