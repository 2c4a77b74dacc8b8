"""RandAugment of VideoMAE's recipe: the same for all frames of a clip.

mmaction2 uses pytorchvideo's, which no longer installs beside current torchvision.
VideoMAE's is timm's, applied with one draw to a whole clip; timm is maintained, so this
draws by it. Moves of all frames are then one call of a kernel, where there is one, and
the pixels are Pillow's.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image
from timm.data import auto_augment as timm

from lm4ve.errors import require
from lm4ve.pixels import resample
from lm4ve.registry import TRANSFORMS

#: RGB of what comes in at the borders.
_FILL = (124, 116, 104)
#: Operations that change each pixel by itself, and those that move pixels by a matrix.
_BY_PIXEL: set[Callable] = {
    timm.invert,
    timm.solarize,
    timm.solarize_add,
    timm.posterize,
}
_BY_PIXEL |= {timm.color, timm.brightness, timm.desaturate}
_MOVES: set[Callable] = {timm.shear_x, timm.shear_y, timm.rotate}
_MOVES |= {timm.translate_x_rel, timm.translate_y_rel}
_MOVES |= {timm.translate_x_abs, timm.translate_y_abs}


@TRANSFORMS.register_module()
class ClipRandAugment(BaseTransform):
    """timm's RandAugment with one draw for all frames of a clip.

    Args:
        config (str): timm's notation. The default is VideoMAE's: magnitude 7
            with a standard deviation of 0.5, four operations a clip, all of
            them stronger with the magnitude (``run_class_finetuning.py``).
        crop (dict, optional): The transform of mmaction2 that crops the clip next, such
            as ``dict(type='RandomResizedCrop')``. Pixels and random numbers are those
            of the two transforms one after the other; what is cut off need not be
            drawn.

    Raises:
        UserError: ``crop`` is lazy.

    Required and modified key: ``imgs``, a list of uint8 ``[H, W, 3]``; and those of
    ``crop``.
    """

    def __init__(
        self, config: str = 'rand-m7-n4-mstd0.5-inc1', crop: dict | None = None
    ) -> None:
        self.config = config
        self.crop = crop and TRANSFORMS.build(crop)
        # A lazy crop is cut out by a later transform: once more.
        require(
            not getattr(self.crop, 'lazy', False),
            'crop.lazy=True would cut the crop out once more later. Fix: crop.lazy=False.',
        )

    def transform(self, results: dict) -> dict:
        clip = np.stack(results.pop('imgs'))
        steps = self._draw(*clip.shape[1:3])
        box = None
        if self.crop:
            results = self.crop(results)
            box = results['crop_bbox'].tolist()
        whole = len(steps)  # so many operations need pixels that are cut off
        while whole and steps[whole - 1][0] in _BY_PIXEL:
            whole -= 1
        if not whole:
            clip = _cut(clip, box)
        for i, step in enumerate(steps, 1):
            clip = _apply(clip, box if i == whole else None, *step)
        results['imgs'] = list(clip)
        return results

    def _draw(self, height: int, width: int) -> list[tuple]:
        """Draw a clip's operations, as timm draws those of a picture."""
        # As in timm's own pipeline; shifts are a share of the picture.
        shift = int(min(height, width) * 0.45)
        options = dict(
            translate_const=shift,
            img_mean=_FILL,
            interpolation=Image.Resampling.BICUBIC,
        )
        augment = timm.rand_augment_transform(self.config, options)
        for operation in augment.ops:
            operation.aug_fn = partial(_note, operation.aug_fn)
        return augment([])


def _note(
    function: Any, steps: list[tuple], *values: float, **options: Any
) -> list[tuple]:
    """Add an operation, and the state from which it may draw numbers of its own."""
    state = random.getstate(), np.random.get_state()
    if function not in _BY_PIXEL | _MOVES:
        function(
            Image.new('RGB', (8, 8)), *values, **options
        )  # draws them, once for all frames
    return [*steps, (function, values, options, state)]


def _apply(
    clip: np.ndarray,
    box: list | None,
    function: Any,
    values: tuple,
    options: dict,
    state: tuple,
) -> np.ndarray:
    """Apply an operation to uint8 ``[T, H, W, 3]``, and return a box of the result."""
    count, height, width, _ = clip.shape
    if function in _MOVES:
        matrix = function(_Canvas((width, height)), *values, **options)
        area = box or (0, 0, width, height)
        moved = (
            resample.transform(clip, matrix, options['fillcolor'], area)
            if matrix
            else None
        )
        if moved is not None:
            return moved
    if function in _BY_PIXEL:  # all frames are one tall picture
        frames = clip.reshape(1, count * height, width, 3)
    else:
        frames = clip
    after, changed = (random.getstate(), np.random.get_state()), []
    for frame in frames:
        random.setstate(state[0])
        np.random.set_state(state[1])
        changed.append(np.asarray(function(Image.fromarray(frame), *values, **options)))
    random.setstate(after[0])
    np.random.set_state(after[1])
    return _cut(np.stack(changed).reshape(clip.shape), box)


def _cut(clip: np.ndarray, box: list | None) -> np.ndarray:
    """Return the part of all frames from left and top to right and bottom."""
    left, top, right, bottom = box or (0, 0, clip.shape[2], clip.shape[1])
    return clip[:, top:bottom, left:right]


class _Canvas:
    """What timm's moves take for a picture: they return the matrix that Pillow would get."""

    rotate = Image.Image.rotate

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = self.width, self.height = size

    def transform(
        self, size: tuple[int, int], method: int, matrix: Any, *_: Any, **__: Any
    ) -> Any:
        return matrix

    def transpose(self, *_: Any) -> None:
        """A rotation by a right angle has no matrix: Pillow does it."""

    copy = transpose
