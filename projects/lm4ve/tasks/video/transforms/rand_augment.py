"""RandAugment of VideoMAE's recipe: the same for all frames of a clip.

mmaction2 uses pytorchvideo's, which no longer installs beside current torchvision.
VideoMAE's is timm's, applied with one draw to a whole clip; timm is maintained, so this
draws by it. Moves of all frames are then one call of a kernel, where there is one, and
the pixels are Pillow's.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image
from timm.data import auto_augment as timm

from lm4ve.errors import require
from lm4ve.pixels import resample
from lm4ve.registry import TRANSFORMS

#: RGB of what comes in at the borders.
_FILL = (124, 116, 104)
#: Operations that change each pixel by itself.
_BY_PIXEL: set[Callable] = {
    timm.invert,
    timm.solarize,
    timm.solarize_add,
    timm.posterize,
    timm.color,
    timm.brightness,
    timm.desaturate,
}
#: Operations that move pixels by a matrix.
_MOVES: set[Callable] = {
    timm.shear_x,
    timm.shear_y,
    timm.rotate,
    timm.translate_x_rel,
    timm.translate_y_rel,
    timm.translate_x_abs,
    timm.translate_y_abs,
}

#: Left, top, right and bottom of the part of a frame that is kept.
Box = tuple[int, int, int, int]


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
        #: timm's notation of the augmentation.
        self.config = config
        #: The crop that comes after the operations: it draws a box, which is cut out here.
        self.crop = TRANSFORMS.build(crop) if crop else None
        # mmaction2's lazy crops are cut out by a later transform: once more.
        require(
            not getattr(self.crop, 'lazy', False),
            'crop.lazy=True would cut the crop out once more later. Fix: crop.lazy=False.',
        )

    def transform(self, results: dict) -> dict:
        """Draw operations and the crop, and apply them to all frames of ``imgs``."""
        clip = np.stack(results.pop('imgs'))
        _, height, width, _ = clip.shape
        operations = self._draw(height, width)
        box = (0, 0, width, height)
        if self.crop is not None:
            results = self.crop(results)
            box = tuple(results['crop_bbox'].tolist())
        # The crop is cut out by the last operation that needs pixels outside of it.
        num_whole = _count_needing_all(operations)
        if num_whole == 0:
            clip = _cut(clip, box)
        for number, operation in enumerate(operations, start=1):
            if number == num_whole:
                clip = _apply_and_cut(clip, operation, box)
            else:
                clip = _apply(clip, operation)
        results['imgs'] = list(clip)
        return results

    def _draw(self, height: int, width: int) -> list['_Operation']:
        """Draw a clip's operations and their strengths by timm, and apply none of them.

        timm's augmentation draws operations and passes a picture from one to the next.
        Here each operation is replaced by one that only records itself, and what is passed
        on is the list of records, which is empty at first.

        Args:
            height, width (int): Of the frames; the largest shift is a share of them.

        Returns:
            list[_Operation]: Those to apply, in order. timm leaves each out with a
            probability of its own.
        """
        # The share is that of timm's own pipeline.
        largest_shift = int(min(height, width) * 0.45)
        options = dict(
            translate_const=largest_shift,
            img_mean=_FILL,
            interpolation=Image.Resampling.BICUBIC,
        )
        augment = timm.rand_augment_transform(self.config, options)
        for operation in augment.ops:
            operation.aug_fn = partial(_record, operation.aug_fn)
        no_records: list[_Operation] = []
        return augment(no_records)


class _Operation(NamedTuple):
    """An operation that timm has drawn.

    Attributes:
        function (Callable): timm's, of a picture, the values and the options.
        values (tuple[float, ...]): Its strength, where it has one.
        options (dict): Fill color and interpolation.
        state (tuple): The state of Python's and of NumPy's generator from which it may
            draw numbers of its own.
    """

    function: Callable
    values: tuple[float, ...]
    options: dict[str, Any]
    state: tuple


def _record(
    function: Callable, records: list[_Operation], *values: float, **options: Any
) -> list[_Operation]:
    """Stand for one of timm's operations: return the records with one more, its own.

    Args:
        function (Callable): The operation that it stands for.
        records (list[_Operation]): Where timm passes a picture, the operations before.
        *values (float): The strength that timm has drawn.
        **options: Fill color and interpolation.
    """
    state = random.getstate(), np.random.get_state()
    if function not in _BY_PIXEL and function not in _MOVES:
        # It may draw numbers of its own. They are drawn here, on a picture that is thrown
        # away, so that the generators go on as if it had run once for all frames.
        function(Image.new('RGB', (8, 8)), *values, **options)
    return [*records, _Operation(function, values, options, state)]


def _count_needing_all(operations: list[_Operation]) -> int:
    """Return how many operations, from the first on, need the whole frames.

    Those that follow change each pixel by itself, so that the crop suffices for them.
    """
    count = len(operations)
    while count > 0 and operations[count - 1].function in _BY_PIXEL:
        count -= 1
    return count


def _apply_and_cut(clip: np.ndarray, operation: _Operation, box: Box) -> np.ndarray:
    """Apply an operation to uint8 ``[T, H, W, 3]``, and return a box of the result."""
    if operation.function in _MOVES:
        moved = _move(clip, operation, box)
        if moved is not None:
            return moved
    return _cut(_apply_by_pillow(clip, operation), box)


def _apply(clip: np.ndarray, operation: _Operation) -> np.ndarray:
    """Apply an operation to uint8 ``[T, H, W, 3]``."""
    _, height, width, _ = clip.shape
    return _apply_and_cut(clip, operation, (0, 0, width, height))


def _move(clip: np.ndarray, operation: _Operation, box: Box) -> np.ndarray | None:
    """Move the pixels of all frames by one call of a kernel, and return a box of them.

    timm's function moves a stand-in for a picture, which gives the matrix.

    Returns:
        np.ndarray or None: None where the operation has no matrix, or there is no kernel.
    """
    _, height, width, _ = clip.shape
    canvas = _Canvas((width, height))
    matrix = operation.function(canvas, *operation.values, **operation.options)
    if not matrix:
        return None
    return resample.transform(clip, matrix, operation.options['fillcolor'], box)


def _apply_by_pillow(clip: np.ndarray, operation: _Operation) -> np.ndarray:
    """Apply an operation to each frame with the same random numbers.

    timm's operations draw some numbers of their own, from Python's and NumPy's global
    generators. Both are set to the recorded state before each frame, and at the end to
    what they were, as if nothing had been drawn.

    Args:
        clip (np.ndarray): uint8 ``[T, H, W, 3]``.
        operation (_Operation): What timm has drawn.

    Returns:
        np.ndarray: uint8 ``[T, H, W, 3]``.
    """
    if operation.function in _BY_PIXEL:
        # These change each pixel by itself: all frames are one tall picture.
        count, height, width, _ = clip.shape
        frames = clip.reshape(1, count * height, width, 3)
    else:
        frames = clip
    python_state, numpy_state = operation.state
    python_state_to_restore = random.getstate()
    numpy_state_to_restore = np.random.get_state()
    changed = []
    for frame in frames:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        picture = operation.function(
            Image.fromarray(frame), *operation.values, **operation.options
        )
        changed.append(np.asarray(picture))
    random.setstate(python_state_to_restore)
    np.random.set_state(numpy_state_to_restore)
    return np.stack(changed).reshape(clip.shape)


def _cut(clip: np.ndarray, box: Box) -> np.ndarray:
    """Return a box of all frames."""
    left, top, right, bottom = box
    return clip[:, top:bottom, left:right]


class _Canvas:
    """Stands for a picture in timm's moves, which then return the matrix for Pillow."""

    rotate = Image.Image.rotate

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.width, self.height = size

    def transform(
        self, size: tuple[int, int], method: int, matrix: Any, *_: Any, **__: Any
    ) -> Any:
        """Return the matrix by which a picture of this size would be moved."""
        return matrix

    def transpose(self, *_: Any) -> None:
        """Return no matrix for a rotation by a right angle, which Pillow does without."""

    copy = transpose
