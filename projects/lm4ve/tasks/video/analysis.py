"""Hooks of the video task for ``lm4ve visualize``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.data.folder_listing import OTHER_ENDING, FolderListing, warn_left_out
from lm4ve.data.image_files import read_pixels
from lm4ve.data.suffixes import has_image_suffix
from lm4ve.draw.pictures import Frames, pixels_of
from lm4ve.errors import UserError
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, prefix_of, proportional_grid
from lm4ve.tasks.video import TASK
from lm4ve.tasks.video.datasets.video_files import find_defect
from lm4ve.tasks.video.export import decoded_by

#: At most so many frames of a frame-wise model's crops and segments are shown.
MOST_FRAMES = 32


class VideoAnalysis(TaskAnalysis):
    """Clips ``[B, V, 3, T, H, W]`` or frames ``[B, V, 3, H, W]``.

    Tokens lie on a grid of times, rows and columns; those of a frame-wise model on
    a grid of rows and columns in each frame.
    """

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
    ) -> dict:
        """Read a video file or a folder of frames, as one clip and one crop."""
        pipeline = _with_one_view(pipeline, cfg)
        results: dict[str, Any] = dict(label=-1, start_index=0, modality='RGB')
        if path.is_dir():
            frames = _read_frames(path)
            results['array'] = frames
            results['total_frames'] = len(frames)
            return Compose(decoded_by('Array', pipeline))(results)
        defect = find_defect(str(path))
        if defect:
            raise UserError(f"The video '{path}' {defect}.")
        results['filename'] = str(path)
        transforms = [dict(type='DecordInit'), *decoded_by('Decord', pipeline)]
        return Compose(transforms)(results)

    def layout(
        self,
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


def _read_frames(folder: Path) -> np.ndarray:
    """Read a folder's images as one RGB array, sorted by number, then by name.

    A warning names what else is in the folder.

    Raises:
        UserError: There are fewer than two frames, of several sizes, or damaged ones.
    """
    files = []
    others = FolderListing()
    for path in folder.iterdir():
        if has_image_suffix(path):
            files.append(path)
        elif path.is_file():
            others.leave_out(OTHER_ENDING, path.name)
    warn_left_out(others, folder, 'frames')
    # Numbers need no leading zeros: 9 comes before 10.
    files.sort(key=lambda path: (len(path.stem), path.stem))
    frames = [read_pixels(path) for path in files]
    sizes = {frame.shape for frame in frames}
    if len(frames) < 2 or len(sizes) > 1:
        raise UserError(f"'{folder}' must hold two or more images of one size.")
    return np.stack(frames)[..., ::-1]


ANALYSIS = VideoAnalysis(TASK)
