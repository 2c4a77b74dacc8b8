"""Let mmaction2's 2D recognizers put a single feature map through a neck."""

from collections.abc import Callable
from typing import Any

import torch
import wrapt
from torch import Tensor

from lm4ve.errors import UserError


def accept_one_map(recognizer: Any) -> None:
    """Let ``Recognizer2D`` accept an ``LLMBlockNeck``, which reads and returns one map.

    Its ``extract_feat`` is replaced by :func:`extract_feat` for recognizers with this
    neck; all others keep mmaction2's.

    Broken in mmaction2 1.2.0 (not reported upstream): before a neck, ``extract_feat``
    iterates over the backbone's output, so that the samples of a single map are taken
    for maps; and ``max_testing_views`` calls ``backbone.get``, which no module has. Both
    end in errors about shapes, far from their cause. May go once a neck may read one
    map.
    """
    wrapt.wrap_function_wrapper(recognizer, 'extract_feat', _extract_feat_of_block)


def _extract_feat_of_block(
    extract_by_host: Callable[..., tuple], model: Any, args: Any, kwargs: Any
) -> tuple:
    """Choose the function that extracts the features of a recognizer, and call it.

    It is :func:`extract_feat` of this file if the neck is an ``LLMBlockNeck``, else
    mmaction2's. The features of the backbone alone are always extracted by mmaction2's,
    which :func:`extract_feat` calls for them.

    Args:
        extract_by_host (Callable): mmaction2's function, bound to the recognizer.
        model (Recognizer2D): The recognizer.
        args, kwargs: The arguments of the call: ``inputs``, ``stage`` ('neck' by
            default) and others, see :func:`extract_feat`.
    """
    if 'stage' in kwargs:
        stage = kwargs['stage']
    elif len(args) > 1:
        stage = args[1]
    else:
        stage = 'neck'
    has_block = is_neck_of_ours(getattr(model, 'neck', None))
    if stage == 'backbone' or not has_block:
        return extract_by_host(*args, **kwargs)
    return extract_feat(model, extract_by_host, *args, **kwargs)


def is_neck_of_ours(module: Any) -> bool:
    """Return whether a module is an ``LLMBlockNeck``, by its name: this package imports none."""
    return any(base.__name__ == 'LLMBlockNeck' for base in type(module).__mro__)


def extract_feat(
    model: Any,
    extract_by_host: Callable[..., tuple],
    inputs: Tensor,
    stage: str = 'neck',
    data_samples: list | None = None,
    test_mode: bool = False,
) -> tuple:
    """Extract features of a 2D recognizer whose neck reads and returns one map.

    Frames go through backbone and neck all at once, or in tests
    ``test_cfg.max_testing_views`` at a time.

    Args:
        model (Recognizer2D): The recognizer. Its ``frames_per_clip`` (1 if it has none)
            is the number of successive frames that the neck gets as one clip.
        extract_by_host (Callable): mmaction2's ``extract_feat``, which runs the
            backbone.
        inputs (Tensor): Frames ``[B, V, C, H, W]``; V is crops times segments.
        stage (str): Where to stop: after the 'backbone', the 'neck' or the 'head'.
        data_samples (list, optional): Passed to the neck in training.
        test_mode (bool): Obey ``model.test_cfg``.

    Returns:
        tuple[Tensor, dict]: Features and the arguments of the head. The features are
        maps ``[B * V', C', H', W']``; V' is V, or V / ``frames_per_clip`` if the neck
        returns one vector for each clip. With ``test_cfg.fcn_test`` they are
        ``[B * V' / S, C', S, H', W']`` for S segments. For 'head' they are its logits.
        ``num_segs`` of the arguments is V'.

    Raises:
        UserError: Frames do not make whole clips.
    """
    test_cfg = {}
    if test_mode and model.test_cfg:
        test_cfg = model.test_cfg
    views = inputs.shape[1]
    frames = inputs.flatten(0, 1)
    frames_at_once = test_cfg.get('max_testing_views') or len(frames)
    if model.with_neck:
        _check_clips(model, views, frames_at_once)
    feats = []
    # Those of the last portion. Only training uses them, where there is one portion.
    losses: dict = {}
    for portion in frames.split(frames_at_once):
        # mmaction2's function expects a batch: here it has one sample.
        backbone_output, _ = extract_by_host(portion.unsqueeze(0), stage='backbone')
        x = _select_map(model, backbone_output)
        if model.with_neck and stage != 'backbone':
            x, losses = _through_neck(model, x, data_samples)
        feats.append(x)
    x = torch.cat(feats)
    arguments: dict[str, Any] = dict(num_segs=len(x) // len(inputs))
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
    """Return how many frames make a clip: 1 for mmaction2's own recognizers."""
    return getattr(model, 'frames_per_clip', 1)


def _check_clips(model: Any, views: int, frames_at_once: int) -> None:
    """Check that the frames of a sample, and those that run at once, make whole clips.

    Args:
        model (Recognizer2D): The recognizer.
        views (int): The number of frames of a sample.
        frames_at_once (int): The number of frames that go through the backbone at once.

    Raises:
        UserError: One of the two numbers is no multiple of ``frames_per_clip``.
    """
    size = _frames_per_clip(model)
    if views % size == 0 and frames_at_once % size == 0:
        return
    raise UserError(
        f'The number of frames ({views}) and test_cfg.max_testing_views ({frames_at_once}) must be '
        f'multiples of frames_per_clip={size}.'
    )


def _select_map(model: Any, backbone_output: Any) -> Tensor:
    """Return one map of a backbone's output: the one that the neck reads, else the last."""
    if not isinstance(backbone_output, (tuple, list)):
        return backbone_output
    if model.with_neck:
        return model.neck.pick(backbone_output)
    return backbone_output[-1]


def _through_neck(model: Any, x: Tensor, data_samples: list | None) -> tuple:
    """Run the neck on frames' maps ``[N, C, H, W]``, which it gets as clips ``[B, C, T, H, W]``.

    Returns:
        tuple[Tensor, dict]: Maps ``[N, C', H', W']``, and the neck's losses. If the neck
        returns a vector ``[B, C']`` for each clip, the maps are ``[B, C', 1, 1]``.
    """
    clips = x.unflatten(0, (-1, _frames_per_clip(model))).transpose(1, 2)
    out, losses = model.neck(clips, data_samples=data_samples)
    if out.dim() == 2:
        return out[..., None, None], losses
    return out.transpose(1, 2).flatten(0, 1), losses
