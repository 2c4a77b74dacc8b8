"""Hooks of the image task for ``lm4ve visualize``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.data.image_files import find_defect, read_pixels
from lm4ve.draw.pictures import Frames, pixels_of
from lm4ve.errors import UserError
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, prefix_of, proportional_grid
from lm4ve.tasks.image import TASK


class ImageAnalysis(TaskAnalysis):
    """Images: ``[B, 3, H, W]``, tokens on a grid of rows and columns."""

    def read_input(
        self, cfg: Config, path: Path | np.ndarray, pipeline: list[dict], **options: Any
    ) -> dict:
        """Read a file, or pixels uint8 ``[H, W, 3]``, BGR, or a volume ``[3, D, H, W]``."""
        array = path if isinstance(path, np.ndarray) else None
        if array is None and (defect := find_defect(str(path), decode=True)):
            raise UserError(f"The image '{path}' {defect}.")
        loads = any('LoadImage' in t['type'] for t in pipeline)
        if loads and array is None:
            return Compose(pipeline)(dict(img_path=str(path)))
        pixels = read_pixels(path) if array is None else array
        if loads:
            pipeline = [t for t in pipeline if 'LoadImage' not in t['type']]
        else:
            # The data set gives arrays, in the order that its preprocessor expects.
            preprocessor = cfg.get('data_preprocessor') or cfg.model.data_preprocessor
            if not preprocessor.get('to_rgb', False) and pixels.ndim == 3:
                pixels = np.ascontiguousarray(pixels[..., ::-1])
            size = cfg.model.get('backbone', {}).get('img_size')
            if size and not any('Resize' in t['type'] for t in pipeline):
                size = (size, size) if isinstance(size, int) else tuple(size)[::-1]
                pipeline = [dict(type='Resize', scale=size), *pipeline]
        sizes = dict(img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2])
        return Compose(pipeline)(dict(img=pixels, **sizes))

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
        grid = getattr(backbone, 'patch_resolution', None)
        if grid is None or math.prod(grid) != count - prefix:
            grid = proportional_grid(count - prefix, *inputs.shape[-2:])
        return Layout(self.task.name, prefix, tuple(grid)).fitting(count)

    def pictures(
        self, model: nn.Module, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list[Frames]:
        if inputs.dim() == 5:  # MedMNIST's volumes: their middle slice
            inputs = inputs[:, :, inputs.shape[2] // 2]
        return [Frames(p[None]) for p in pixels_of(inputs, model.data_preprocessor)]


ANALYSIS = ImageAnalysis(TASK)
