"""Handwritten digits, scikit-learn's scans, that move in one of eight ways.

No single frame determines the class. Position and angle are uniform and wrap around,
and so does the logarithm of the size, for every class and at every frame; the
class is only in which of the three changes, and in which direction.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from lm4ve.data.held_out import draw_held_out
from lm4ve.demo_data.digits import digit_scans

#: The classes, in the order of their labels.
CLASSES = (
    'left',
    'right',
    'up',
    'down',
    'growing',
    'shrinking',
    'turning clockwise',
    'turning counter-clockwise',
)
#: Pixels a side.
SIZE = 32
#: Frames a clip.
FRAMES = 8
#: Frames a second.
FPS = 8
#: Side of the smallest and of the largest digit in pixels.
SIDES = (12.0, 22.0)
#: Bounds of the change a frame, drawn uniformly for each clip: pixels, share of the range
#: of sizes (which wraps around), degrees.
STEPS = dict(shift=(2.0, 4.0), size=(0.06, 0.12), angle=(12.0, 24.0))
#: ``[8, 4]``: the sign with which each class changes x, y, size and angle.
_CHANGES = np.array(
    [
        (-1, 0, 0, 0),
        (1, 0, 0, 0),
        (0, -1, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, -1, 0),
        (0, 0, 0, 1),
        (0, 0, 0, -1),
    ]
)
_SEEDS = dict(train=0, val=1, test=2)


def render(digit: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Draw a digit in several states, a frame for each.

    Args:
        digit (np.ndarray): Float ``[8, 8]``, 0 (paper) to 1 (ink).
        states (np.ndarray): ``[T, 4]``: x and y of its middle from the picture's
            in pixels, the size as a share of the range of its logarithm, and
            the angle in degrees, clockwise.

    Returns:
        np.ndarray: uint8 ``[T, SIZE, SIZE]``; what leaves on one side comes
        in on the other.
    """
    digit = digit.astype(np.float32)
    smallest, largest = SIDES
    frames = []
    for x, y, size, angle in states:
        side = smallest * (largest / smallest) ** (size % 1)
        whole_x, whole_y = np.floor((x, y)).astype(int)
        # OpenCV's angles are counter-clockwise.
        matrix = cv2.getRotationMatrix2D((3.5, 3.5), -angle, side / 8)
        shift = matrix[:, 2] + np.array((x, y)) - (whole_x, whole_y)
        matrix[:, 2] = shift + SIZE // 2 - 3.5
        # Drawn in the middle, where all of it fits, then moved by whole pixels.
        frame = cv2.warpAffine(digit, matrix, (SIZE, SIZE))
        frames.append(np.roll(frame, (whole_y, whole_x), axis=(0, 1)))
    return np.rint(255 * np.clip(frames, 0, 1)).astype(np.uint8)


def draw_states(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how a clip of a class moves.

    Args:
        label (int): Index into :data:`CLASSES`.
        rng (np.random.Generator): The source of randomness.

    Returns:
        np.ndarray: ``[FRAMES, 4]``, the ``states`` of :func:`render`.
    """
    start = rng.uniform(0, (SIZE, SIZE, 1, 360))
    shift = rng.uniform(*STEPS['shift'])
    size = rng.uniform(*STEPS['size'])
    angle = rng.uniform(*STEPS['angle'])
    step = _CHANGES[label] * (shift, shift, size, angle)
    times = np.arange(FRAMES)[:, None]
    return start + times * step


def clips(split: str, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Generate the clips of a split, the same ones each time; classes take turns.

    Each shows a random scan of a digit that moves as its class does. A digit's scan
    belongs to one split only.

    Args:
        split (str): 'train', 'val' or 'test'.
        count (int): How many clips.

    Yields:
        tuple[np.ndarray, int]: uint8 ``[FRAMES, SIZE, SIZE]`` and the label.
    """
    scans, _ = digit_scans()[split]
    for scan, states, label in plan_clips(split, count):
        # Scans have levels of ink from 0 to 16.
        yield render(scans[scan] / 16, states), label


def plan_clips(split: str, count: int) -> Iterator[tuple[int, np.ndarray, int]]:
    """Draw what the clips of a split show; arguments of :func:`clips`.

    Yields:
        tuple[int, np.ndarray, int]: The number of the scan, the ``states`` of
        :func:`render`, and the label.
    """
    rng = np.random.default_rng(_SEEDS[split])
    scans, _ = digit_scans()[split]
    for number in range(count):
        label = number % len(CLASSES)
        scan = int(rng.integers(len(scans)))
        yield scan, draw_states(label, rng), label


def draw_val_clips(count: int, seed: int) -> np.ndarray:
    """Draw a fifth of the scans of the training clips; all clips of a scan go together.

    Args:
        count (int): How many training clips there are.
        seed (int): Decides the draw.

    Returns:
        np.ndarray: Bool ``[count]``, which clips show one of these scans.
    """
    scans, _ = digit_scans()['train']
    is_held_out = draw_held_out(np.zeros(len(scans)), seed)
    scan_of_clip = [scan for scan, _, _ in plan_clips('train', count)]
    return is_held_out[scan_of_clip]
