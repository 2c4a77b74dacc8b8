"""What the package asks of action recognition: reads, makes up, places and exports clips."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.draw.pictures import Frames, pixels_of
from lm4ve.errors import UserError
from lm4ve.tasks.base.layouts import Layout, prefix_of, proportional_grid
from lm4ve.tasks.base.made_up import made_up_picture, of_first_class
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.base.tested import pipeline_of
from lm4ve.tasks.video import TASK
from lm4ve.tasks.video.datasets.video_files import find_defect, read_frames

#: At most so many frames of a frame-wise model's crops and segments are shown.
MOST_FRAMES = 32
#: What pipelines need to know of a video without a label.
_UNLABELED = dict(label=-1, start_index=0, modality='RGB')
#: Frames of a made-up video, which the pipeline repeats where it wants more.
_FRAMES = 32


class VideoProtocol(TaskProtocol):
    """Clips ``[B, V, 3, T, H, W]`` or frames ``[B, V, 3, H, W]``.

    Tokens lie on a grid of times, rows and columns; those of a frame-wise model on
    a grid of rows and columns in each frame. An exported function maps raw clips or
    frames to scores ``[B, classes]``. V are the views (clips and crops) that are
    averaged, as in a test.
    """

    inputs = {
        'clips': 'pixels from 0 to 255, a dimension for the views (clips and crops, or frames)'
    }
    outputs = {
        'scores': "averaged over views as model.cls_head.average_clips says ('prob': probabilities)"
    }

    def read(
        self, source: Any, cfg: Config, pipeline: list[dict], **options: Any
    ) -> dict:
        """Read a video file or a folder of frames, as one clip and one crop."""
        pipeline = _with_one_view(pipeline, cfg)
        if source.is_dir():
            return _sample_of_frames(read_frames(source), pipeline)
        defect = find_defect(str(source))
        if defect:
            raise UserError(f"The video '{source}' {defect}.")
        transforms = [dict(type='DecordInit'), *decoded_by('Decord', pipeline)]
        return Compose(transforms)(dict(_UNLABELED, filename=str(source)))

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return a made-up video of class 0, in which a picture moves to the right.

        A pipeline without resizing and crops takes videos of one size, the backbone's.
        Where that is not known, the sample is the data set's.
        """
        pipeline = pipeline_of(cfg, training)
        fits_any_size = any(
            'Resize' in transform['type'] or 'Crop' in transform['type']
            for transform in pipeline
        )
        if fits_any_size:
            picture = made_up_picture(number)
        else:
            # The data set has one size, as the demo's.
            side = cfg.model.backbone.get('img_size')
            if side is None:
                return super().example(cfg, number, training)
            picture = made_up_picture(number, side, side)
        frames = [np.roll(picture, 5 * time, axis=1) for time in range(_FRAMES)]
        return of_first_class(_sample_of_frames(np.stack(frames), pipeline))

    def layout(
        self,
        name: str,
        model: nn.Module,
        inputs: Tensor,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of ``count`` tokens of a clip: times, rows and columns.

        A module that returned a map ``[B, C, ...]`` has its tokens on the grid of that
        map. Other tokens begin with the class token, if there is one. Their rows and
        columns are those of the backbone's ``grid_size`` or, if these do not divide
        their number, have the proportions of the input; the rest of the number is times.

        Args:
            name (str): Not used: all tokens are of the clip.
            model (nn.Module): The model that they come from.
            inputs (Tensor): ``[..., H, W]``.
            count (int): How many tokens a clip has.
            grid (tuple[int, ...], optional): The shape of the map, for tokens of one.

        Raises:
            UserError: So many tokens fill no grid.
        """
        if grid is not None:
            return Layout(kind=self.task.name, prefix=0, grid=grid)
        backbone = getattr(model, 'backbone', model)
        prefix = prefix_of(backbone, count)
        num_patches = count - prefix
        # Rows and columns; what is left of the tokens are times.
        plane = getattr(backbone, 'grid_size', None)
        if plane is None or num_patches % math.prod(plane) != 0:
            height, width = inputs.shape[-2:]
            plane = proportional_grid(num_patches, height, width)
        times = num_patches // math.prod(plane)
        layout = Layout(kind=self.task.name, prefix=prefix, grid=(times, *plane))
        # It refuses a number of tokens that the grid does not hold.
        return layout.fitting(count)

    def frames_shown(self, inputs: Tensor, layouts: Sequence[Layout]) -> int:
        """Return how many of a frame-wise model's frames are drawn; 0 for a model of clips.

        A neck may join the frames of such a model to clips: then the frames of the first
        clip are drawn. Otherwise the first :data:`MOST_FRAMES` frames are.

        Args:
            inputs (Tensor): Frames ``[B, V, 3, H, W]``, where V counts the frames of all
                crops and segments, or clips ``[B, V, 3, T, H, W]``.
            layouts (Sequence[Layout]): The places of the tokens that are shown. Those
                after such a neck have several times.
        """
        takes_frames = inputs.dim() == 5
        if not takes_frames:
            return 0
        frames_a_clip = max(layout.times for layout in layouts)
        if frames_a_clip > 1:
            return frames_a_clip
        return min(inputs.shape[1], MOST_FRAMES)

    def pictures(
        self, model: nn.Module, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list[Frames]:
        """Return the frames to draw of each sample.

        Args:
            model (nn.Module): Its preprocessor undoes the normalization.
            inputs (Tensor): The preprocessed batch.
            outputs (Sequence): Not used.
            frames (int): How many frames to draw of a frame-wise model's; 0 for a model
                of clips, whose first view is drawn.
        """
        pictures = []
        for pixels in pixels_of(inputs, model.data_preprocessor):
            if frames > 0:
                # Frames [V, H, W, 3] of a frame-wise model.
                shown = pixels[:frames]
            else:
                # Clips [V, T, H, W, 3]: the first view.
                shown = pixels[0]
            pictures.append(Frames(shown, is_clip=True))
        return pictures

    def prepare(self, model: Any) -> None:
        """Let the model compute all views at once.

        Views in parts would save memory, but work only for a batch of one.
        """
        if model.test_cfg:
            model.test_cfg.pop('max_testing_views', None)

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


def _with_one_view(pipeline: list[dict], cfg: Config) -> list[dict]:
    """Change a test pipeline to one view, as mmaction2's inferencer does; return it.

    A view is one crop of one clip. A 2D recognizer takes single frames, and its
    ``num_clips`` is how many of these it averages: that number stays.

    Args:
        pipeline (list[dict]): Changed in place.
        cfg (Config): Its model is a 3D recognizer, or a 2D one.
    """
    is_3d = cfg.model.type.endswith('Recognizer3D')
    for transform in pipeline:
        if transform['type'] in ('ThreeCrop', 'lm4ve.ThreeCrop', 'TenCrop'):
            transform['type'] = 'CenterCrop'
        samples_clips = transform['type'] in ('SampleFrames', 'lm4ve.UniformViews')
        if samples_clips and is_3d:
            transform['num_clips'] = 1
    return pipeline


def _sample_of_frames(frames: np.ndarray, pipeline: list[dict]) -> dict:
    """Send frames ``[T, H, W, 3]`` through a pipeline, as if a video had them."""
    results = dict(_UNLABELED, array=frames, total_frames=len(frames))
    sample: dict = Compose(decoded_by('Array', pipeline))(results)
    return sample


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


PROTOCOL = VideoProtocol(TASK)
