"""Handwritten digits on photographs, with the mask of their strokes.

Measuring whether activations select the foreground needs masks. scikit-learn's digits
are their own masks (a threshold on the scanned pixels). Pasted on cluttered crops of
the photographs in scikit-image's wheel, at any place and size, brighter or darker than
the background, they are a task to find. Nothing is downloaded.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lm4ve.errors import UserError

#: Photographs and photographed textures of scikit-image, none in two parts. Left out:
#: those with writing, drawings, and pictures that are mostly empty.
PHOTOGRAPHS = dict(
    fit=(
        'astronaut.png',
        'camera.png',
        'coffee.png',
        'coins.png',
        'grass.png',
        'brick.png',
    ),
    val=('rocket.jpg', 'clock_motion.png'),
    test=('chelsea.png', 'motorcycle_left.png', 'gravel.png', 'ihc.png'),
)
PHOTOGRAPHS['train'] = PHOTOGRAPHS['fit'] + PHOTOGRAPHS['val']
#: Pixels a side of a picture.
SIZE = 32
#: The shortest and the longest side of the digit's box, in pixels.
SIDES = (22.0, 28.0)
#: The shortest and the longest side of the crop behind it before scaling, in pixels.
CROPS = (32, 160)
#: Bounds of the distance of the strokes' gray level from the background's mean.
CONTRAST = (90.0, 150.0)
#: Bounds of the factor of the background's contrast.
FADING = (0.4, 0.8)
#: Ink (0 to 1) from which a pixel is foreground.
INK = 0.5
#: The number of a split in the seeds of its pictures.
_CODES = dict(train=0, fit=1, val=2, test=3)


class Picture(NamedTuple):
    """A digit on a photograph.

    Attributes:
        img (np.ndarray): uint8 ``[SIZE, SIZE, 3]``, BGR.
        mask (np.ndarray): uint8 ``[SIZE, SIZE]``, 1 on the strokes.
        photograph (str): The photograph's file name.
    """

    img: np.ndarray
    mask: np.ndarray
    photograph: str


def draw_picture(
    ink: np.ndarray,
    split: str,
    digit: int,
    variant: int,
    seed: int = 0,
    max_angle: float = 0.0,
) -> Picture:
    """Draw a digit on a photograph of a split, the same picture each time.

    Args:
        ink (np.ndarray): float32 ``[8, 8]``, 0 (paper) to 1.
        split (str): A key of :data:`PHOTOGRAPHS`.
        digit (int): The number of the digit in its split.
        variant (int): Which of this digit's pictures.
        seed (int): Another one gives another place, size and background.
        max_angle (float): Largest turn in degrees.

    Raises:
        UserError: The photograph is not in the installed scikit-image.
    """
    rng = np.random.default_rng((seed, _CODES[split], digit, variant))
    photographs = PHOTOGRAPHS[split]
    name = photographs[rng.integers(len(photographs))]
    background = crop(_photograph(name), rng)
    img, mask = paste(ink, background, rng, max_angle)
    return Picture(img, mask, name)


def crop(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a random square, mirrored or not, at a random scale.

    Args:
        photograph (np.ndarray): uint8 ``[H, W, 3]``.
        rng (np.random.Generator): The source of randomness.

    Returns:
        np.ndarray: float32 ``[SIZE, SIZE, 3]``, 0 to 255.
    """
    height, width = photograph.shape[:2]
    shortest, longest = CROPS
    side = rng.integers(shortest, min(longest, height, width) + 1)
    y = rng.integers(height - side + 1)
    x = rng.integers(width - side + 1)
    square = photograph[y : y + side, x : x + side]
    is_mirrored = rng.random() < 0.5
    if is_mirrored:
        square = square[:, ::-1]
    square = np.ascontiguousarray(square)
    small = cv2.resize(square, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def paste(
    ink: np.ndarray,
    background: np.ndarray,
    rng: np.random.Generator,
    max_angle: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Write a digit on a background.

    The strokes have one color, about as often darker as brighter than the
    background's mean, so that they are not simply what is brightest.

    Args:
        ink (np.ndarray): float32 ``[8, 8]``, 0 (paper) to 1.
        background (np.ndarray): float32 ``[SIZE, SIZE, 3]``, 0 to 255.
        rng (np.random.Generator): The source of randomness.
        max_angle (float): Largest turn in degrees.

    Returns:
        tuple[np.ndarray, np.ndarray]: The picture, uint8 ``[SIZE, SIZE, 3]``, and
        the mask, uint8 ``[SIZE, SIZE]``, 1 where the ink is :data:`INK` or more.
    """
    alpha = _place_digit(ink, rng, max_angle)[..., None]
    level = background.mean()
    contrast = rng.uniform(*CONTRAST)
    background = level + rng.uniform(*FADING) * (background - level)
    is_darker = rng.random() < 0.5
    if is_darker:
        contrast = -contrast
    # Where there are no such levels, the strokes are on the other side of the mean.
    if not 0 <= level + contrast <= 255:
        contrast = -contrast
    color = level + contrast + rng.uniform(-25, 25, size=3)
    img = background * (1 - alpha) + color.clip(0, 255) * alpha
    mask = (alpha[..., 0] >= INK).astype(np.uint8)
    return np.rint(img).clip(0, 255).astype(np.uint8), mask


def _place_digit(
    ink: np.ndarray, rng: np.random.Generator, max_angle: float
) -> np.ndarray:
    """Scale, turn and move a digit at random, float32 ``[SIZE, SIZE]``, 0 to 1."""
    side = rng.uniform(*SIDES)
    middle = rng.uniform(side / 2, SIZE - side / 2, size=2)
    angle = rng.uniform(-max_angle, max_angle)
    matrix = cv2.getRotationMatrix2D((3.5, 3.5), angle, side / 8)
    # Pixel centers are half a pixel from the corner.
    matrix[:, 2] = matrix[:, 2] + middle - 0.5 - 3.5
    return cv2.warpAffine(ink, matrix, (SIZE, SIZE))


@cache
def _photograph(name: str) -> np.ndarray:
    """Read a photograph of scikit-image's wheel as uint8 ``[H, W, 3]``, BGR."""
    import skimage

    # By path: `skimage.data` would download what is missing.
    path = Path(skimage.__file__).parent / 'data' / name
    # OpenCV prints a warning if there is no such file.
    pixels = cv2.imread(str(path)) if path.is_file() else None
    if pixels is None:
        raise UserError(f"'{path}' is missing. Fix: install scikit-image 0.22 to 0.26.")
    return pixels
