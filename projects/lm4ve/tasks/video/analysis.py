"""Hooks of the video task for ``lm4ve visualize``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.data.image_files import read_pixels
from lm4ve.draw.pictures import Frames, pixels_of
from lm4ve.errors import UserError
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, prefix_of, proportional_grid
from lm4ve.tasks.video import TASK
from lm4ve.tasks.video.datasets.video_files import find_defect
from lm4ve.tasks.video.export import decoded_by

#: At most so many frames of a frame-wise model's crops and segments are shown.
MOST_FRAMES = 32
_FRAME_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


class VideoAnalysis(TaskAnalysis):
    """Clips ``[B, V, 3, T, H, W]`` or frames ``[B, V, 3, H, W]``.

    Tokens lie on a grid of times, rows and columns; those of a frame-wise model on
    a grid of rows and columns in each frame.
    """

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
    ) -> dict:
        # One clip and one crop, as mmaction2's inferencer has it.
        for t in pipeline:
            if t['type'] in ('ThreeCrop', 'TenCrop'):
                t['type'] = 'CenterCrop'
            if t['type'] == 'SampleFrames' and cfg.model.type.endswith('Recognizer3D'):
                t['num_clips'] = 1
        results: dict[str, Any] = dict(label=-1, start_index=0, modality='RGB')
        if path.is_dir():
            frames = _read_frames(path)
            results.update(array=frames, total_frames=len(frames))
            return Compose(decoded_by('Array', pipeline))(results)
        if defect := find_defect(str(path)):
            raise UserError(f"The video '{path}' {defect}.")
        pipeline = [dict(type='DecordInit'), *decoded_by('Decord', pipeline)]
        return Compose(pipeline)(dict(results, filename=str(path)))

    def layout(
        self,
        model: nn.Module,
        inputs: Tensor,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        if grid is not None:
            return Layout(self.task.name, 0, grid)
        backbone = getattr(model, 'backbone', model)
        prefix = prefix_of(backbone, count)
        placed = count - prefix
        plane = getattr(backbone, 'grid_size', None)
        if plane is None or placed % math.prod(plane):
            plane = proportional_grid(placed, *inputs.shape[-2:])
        grid = (placed // math.prod(plane), *plane)
        return Layout(self.task.name, prefix, grid).fitting(count)

    def frames_shown(self, inputs: Tensor, layouts: Sequence[Layout]) -> int:
        """Return how many frames of a frame-wise model's sample are drawn.

        Where a neck joins frames to clips they are the first clip's; else they are
        all, but of many crops and segments the first ones.
        """
        if inputs.dim() != 5:
            return 0
        joined = max(layout.times for layout in layouts)
        return joined if joined > 1 else min(inputs.shape[1], MOST_FRAMES)

    def pictures(
        self, model: nn.Module, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list[Frames]:
        pixels = pixels_of(inputs, model.data_preprocessor)
        # Clips [B, V, T, H, W, 3], of which the first view; frames [B, V, H, W, 3].
        return [Frames(p[:frames] if frames else p[0], is_clip=True) for p in pixels]


def _read_frames(folder: Path) -> np.ndarray:
    """Read a folder's images as one RGB array, sorted by number, then by name."""
    files = (p for p in folder.iterdir() if p.suffix.lower() in _FRAME_SUFFIXES)
    frames = [
        read_pixels(p) for p in sorted(files, key=lambda p: (len(p.stem), p.stem))
    ]
    sizes = {frame.shape for frame in frames}
    if len(frames) < 2 or len(sizes) > 1:
        raise UserError(
            f"'{folder}' must hold two or more {_FRAME_SUFFIXES} of one size."
        )
    return np.stack(frames)[..., ::-1]


ANALYSIS = VideoAnalysis(TASK)
