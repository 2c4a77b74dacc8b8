"""What the package asks of image classification: reads, makes up, places and exports images."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.data.image_files import MAX_PIXELS, find_defect, read_pixels
from lm4ve.draw.pictures import Frames, pixels_of
from lm4ve.errors import UserError
from lm4ve.tasks.base.layouts import Layout, prefix_of, proportional_grid
from lm4ve.tasks.base.made_up import made_up_picture, of_first_class
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.base.tested import pipeline_of, tested_dataset, tested_field
from lm4ve.tasks.image import TASK


class ImageProtocol(TaskProtocol):
    """Images: ``[B, 3, H, W]``, tokens on a grid of rows and columns.

    An exported function maps raw pixels ``[B, 3, H, W]`` to logits ``[B, classes]``.
    """

    inputs = {
        'images': "pixels from 0 to 255 behind the test pipeline's resizing and cropping"
    }
    outputs = {'logits': 'one for each class; softmax gives the probabilities'}

    def read(
        self,
        source: Path | np.ndarray,
        cfg: Config,
        pipeline: list[dict],
        **options: Any,
    ) -> dict:
        """Read a file, or pixels uint8 ``[H, W, 3]``, BGR, or a volume ``[3, D, H, W]``."""
        without_loader = [t for t in pipeline if 'LoadImage' not in t['type']]
        has_loader = len(without_loader) < len(pipeline)
        if isinstance(source, np.ndarray):
            pixels = source
        else:
            max_pixels = tested_field(cfg, 'max_pixels', MAX_PIXELS)
            defect = find_defect(str(source), decode=True, max_pixels=max_pixels)
            if defect:
                raise UserError(f"The image '{source}' {defect}.")
            if has_loader:
                return Compose(pipeline)(dict(img_path=str(source)))
            pixels = read_pixels(source, max_pixels)
        if has_loader:
            pipeline = without_loader
        else:
            pixels = _in_order_of_data_set(pixels, cfg)
            pipeline = _with_resize(pipeline, cfg)
        shape = pixels.shape[:2]
        return Compose(pipeline)(dict(img=pixels, img_shape=shape, ori_shape=shape))

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return a made-up picture, or a volume where the data set has these, of class 0."""
        pipeline = pipeline_of(cfg, training)
        dataset = tested_dataset(cfg)
        if str(dataset.get('flag')).endswith('3d'):
            # MedMNIST's volumes, which no image file holds.
            volume = _made_up_volume(number, dataset.get('size', 28))
            return of_first_class(Compose(pipeline)(dict(img=volume)))
        return of_first_class(self.read(made_up_picture(number), cfg, pipeline))

    def layout(
        self,
        name: str,
        model: nn.Module,
        inputs: Tensor,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of ``count`` tokens of an image, in rows and columns.

        Tokens that were a map have its grid, and none comes before them. Otherwise the
        class token, if the backbone has one, comes first, and the patches lie on the
        backbone's grid; if that is of another number, on a grid with the proportions of
        the input.

        Args:
            name (str): Not used: all tokens are of the image.
            model (nn.Module): The model that they come from.
            inputs (Tensor): ``[B, 3, H, W]``.
            count (int): How many tokens an image has.
            grid (tuple[int, int], optional): Rows and columns of the map that they were.

        Raises:
            UserError: So many tokens fill no grid.
        """
        if grid is not None:
            return Layout(self.task.name, 0, grid)
        backbone = getattr(model, 'backbone', model)
        prefix = prefix_of(backbone, count)
        num_patches = count - prefix
        patch_grid = getattr(backbone, 'patch_resolution', None)
        if patch_grid is None or math.prod(patch_grid) != num_patches:
            height, width = inputs.shape[-2:]
            patch_grid = proportional_grid(num_patches, height, width)
        return Layout(self.task.name, prefix, tuple(patch_grid)).fitting(count)

    def pictures(
        self, model: nn.Module, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list[Frames]:
        """Return the images of a batch as pictures; of a volume, its middle slice."""
        if inputs.dim() == 5:
            # MedMNIST's volumes [B, 3, D, H, W].
            inputs = inputs[:, :, inputs.shape[2] // 2]
        images = pixels_of(inputs, model.data_preprocessor)
        return [Frames(image[None]) for image in images]


def _in_order_of_data_set(pixels: np.ndarray, cfg: Config) -> np.ndarray:
    """Return a file's pixels with the channels in the order that the model is used to.

    Where no transform reads files, the data set makes the pixels. A preprocessor with
    ``to_rgb`` takes BGR, as a file is read. Any other takes what the data set makes, which
    is RGB.

    Args:
        pixels (np.ndarray): ``[H, W, 3]``, BGR, or a volume, which has no colors and is
            returned as it is.
        cfg (Config): Has the preprocessor.
    """
    preprocessor = cfg.get('data_preprocessor') or cfg.model.data_preprocessor
    takes_bgr = preprocessor.get('to_rgb', False)
    is_picture = pixels.ndim == 3
    if takes_bgr or not is_picture:
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


def _made_up_volume(number: int, size: int) -> np.ndarray:
    """Return a volume of noise, uint8 ``[3, size, size, size]``."""
    shape = (3, size, size, size)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


PROTOCOL = ImageProtocol(TASK)
