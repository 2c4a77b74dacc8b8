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
        without_loader = [t for t in pipeline if 'LoadImage' not in t['type']]
        has_loader = len(without_loader) < len(pipeline)
        if isinstance(path, np.ndarray):
            pixels = path
        else:
            defect = find_defect(str(path), decode=True)
            if defect:
                raise UserError(f"The image '{path}' {defect}.")
            if has_loader:
                return Compose(pipeline)(dict(img_path=str(path)))
            pixels = read_pixels(path)
        if has_loader:
            pipeline = without_loader
        else:
            pixels = _in_order_of_data_set(pixels, cfg)
            pipeline = _with_resize(pipeline, cfg)
        shape = pixels.shape[:2]
        return Compose(pipeline)(dict(img=pixels, img_shape=shape, ori_shape=shape))

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
        num_patches = count - prefix
        grid = getattr(backbone, 'patch_resolution', None)
        if grid is None or math.prod(grid) != num_patches:
            height, width = inputs.shape[-2:]
            grid = proportional_grid(num_patches, height, width)
        return Layout(self.task.name, prefix, tuple(grid)).fitting(count)

    def pictures(
        self, model: nn.Module, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list[Frames]:
        if inputs.dim() == 5:
            # Of MedMNIST's volumes, the slice in the middle.
            inputs = inputs[:, :, inputs.shape[2] // 2]
        images = pixels_of(inputs, model.data_preprocessor)
        return [Frames(image[None]) for image in images]


def _in_order_of_data_set(pixels: np.ndarray, cfg: Config) -> np.ndarray:
    """Return BGR pixels in the order of channels of a data set that gives arrays itself.

    A preprocessor that does not convert its inputs to RGB expects RGB from the data set.
    """
    preprocessor = cfg.get('data_preprocessor') or cfg.model.data_preprocessor
    converts = preprocessor.get('to_rgb', False)
    is_volume = pixels.ndim != 3
    if converts or is_volume:
        return pixels
    return np.ascontiguousarray(pixels[..., ::-1])


def _with_resize(pipeline: list[dict], cfg: Config) -> list[dict]:
    """Return a pipeline that resizes files to the backbone's size if it does not do so.

    A data set that gives arrays of one size needs no resizing, but files have any size.
    """
    size = cfg.model.get('backbone', {}).get('img_size')
    if not size or any('Resize' in t['type'] for t in pipeline):
        return pipeline
    if isinstance(size, int):
        scale = size, size
    else:
        # mmcv's scale is (width, height), the backbone's size (height, width).
        scale = tuple(size)[::-1]
    return [dict(type='Resize', scale=scale), *pipeline]


ANALYSIS = ImageAnalysis(TASK)
