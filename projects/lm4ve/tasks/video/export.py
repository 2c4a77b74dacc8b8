"""Inputs and outputs of exported video models."""

from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor

from lm4ve.tasks.base.analysis import tested_pipeline
from lm4ve.tasks.base.export import TaskExport, made_up_pictures
from lm4ve.tasks.video import TASK

#: Frames of a made-up video, which the pipeline repeats where it wants more.
_FRAMES = 32


class VideoExport(TaskExport):
    """Raw clips ``[B, V, 3, T, H, W]`` (or frames ``[B, V, 3, H, W]``) to scores ``[B, classes]``.

    V are the views (clips and crops) that are averaged, as in a test.
    """

    inputs = {
        'clips': 'pixels from 0 to 255, a dimension for the views (clips and crops, or frames)'
    }
    outputs = {
        'scores': "averaged over views as model.cls_head.average_clips says ('prob': probabilities)"
    }

    def prepare(self, model: Any) -> None:
        """Let the model compute all views at once.

        Views in parts would save memory, but work only for a batch of one.
        """
        if model.test_cfg:
            model.test_cfg.pop('max_testing_views', None)

    def samples(
        self, cfg: Config, count: int, pipeline: list[dict] | None = None
    ) -> list[dict]:
        """Return samples of made-up videos, in which a picture moves to the right.

        A pipeline without resizing and crops takes videos of one size, the backbone's.
        Where that is not known, the samples are the data set's.
        """
        pipeline = pipeline or tested_pipeline(cfg)
        fits_any_size = any(
            'Resize' in transform['type'] or 'Crop' in transform['type']
            for transform in pipeline
        )
        if fits_any_size:
            pictures = made_up_pictures(count)
        else:
            # The data set has one size, as the demo's.
            side = cfg.model.backbone.get('img_size')
            if side is None:
                return super().samples(cfg, count)
            pictures = made_up_pictures(count, side, side)
        transform = Compose(decoded_by('Array', pipeline))
        samples = []
        for picture in pictures:
            frames = [np.roll(picture, 5 * t, axis=1) for t in range(_FRAMES)]
            results = dict(
                array=np.stack(frames),
                total_frames=_FRAMES,
                label=-1,
                start_index=0,
                modality='RGB',
            )
            samples.append(transform(results))
        return samples

    def forward(self, model: Any, *tensors: Tensor) -> Tensor:
        """Compute the scores of raw clips, averaged over their views.

        Args:
            model (nn.Module): A recognizer of mmaction2.
            *tensors (Tensor): One tensor, clips ``[B, V, 3, T, H, W]`` or frames
                ``[B, V, 3, H, W]`` of 0 to 255, each of V views. (Other tasks' models
                take several.)

        Returns:
            Tensor: ``[B, classes]``, or the scores of each view ``[B, V, classes]`` of a
            model whose head has ``average_clips=None``.
        """
        (clips,) = tensors
        clips = _normalized(clips, model.data_preprocessor)
        features, options = model.extract_feat(clips, test_mode=True)
        # From [B * V, classes] to [B, V, classes].
        scores = model.cls_head(features, **options).unflatten(0, (clips.shape[0], -1))
        average = model.cls_head.average_clips
        if average is None:
            return scores
        if average == 'prob':
            scores = scores.softmax(dim=2)
        return scores.mean(dim=1)

    def expected(self, model: Any, data: Any) -> Tensor:
        """Return the scores ``[B, classes]`` that a test gives."""
        return torch.stack([s.pred_score for s in model.test_step(data)])


def decoded_by(decoder: str, pipeline: list[dict]) -> list[dict]:
    """Return a pipeline that decodes by 'Array' (frames in memory) or 'Decord'."""
    transforms = []
    for transform in pipeline:
        if 'Decode' in transform['type']:
            transforms.append(dict(type=f'{decoder}Decode'))
        elif 'Init' not in transform['type']:
            transforms.append(dict(transform))
    return transforms


def _normalized(clips: Tensor, preprocessor: Any) -> Tensor:
    """Normalize ``[B, V, 3, ...]`` as mmaction2's preprocessor does a list of clips."""
    clips = clips.float()
    if preprocessor.to_rgb:
        clips = clips.flip(2)
    if not preprocessor._enable_normalize:
        return clips
    # Mean and std [3] stand at dimension 2, that of the channels.
    shape = [-1] + [1] * (clips.dim() - 3)
    return (clips - preprocessor.mean.view(shape)) / preprocessor.std.view(shape)


EXPORT = VideoExport(TASK)
