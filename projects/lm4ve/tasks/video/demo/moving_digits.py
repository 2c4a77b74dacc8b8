"""Handwritten digits that move in one of eight ways: a small, real video data set.

They demonstrate video training without a download. The digits are scikit-learn's scans,
the files H.264 as real videos are, so that lists, decoders, sampling and testing over
several views are those of a real data set.

No single frame determines the class. Position and angle are uniform and wrap around,
and so does the logarithm of the size, for every class and at every frame; the
class is only in which of the three changes, and in which direction.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from mmengine.dist import barrier, is_main_process
from tqdm import tqdm

from lm4ve.data.generated import write_once
from lm4ve.data.held_out import draw_held_out
from lm4ve.demo_data.digits import digit_scans
from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.video.datasets.video_files import write_video
from lm4ve.tasks.video.datasets.video_lists import CheckedVideoDataset

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
#: Clips of each split. A digit's scan belongs to one split only.
CLIPS = dict(train=8000, val=400, test=800)
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

    Each shows a random scan of a digit that moves as its class does.

    Args:
        split (str): 'train', 'val' or 'test'.
        count (int): How many clips.

    Yields:
        tuple[np.ndarray, int]: uint8 ``[FRAMES, SIZE, SIZE]`` and the label.
    """
    scans, _ = digit_scans()[split]
    for scan, states, label in _plan_clips(split, count):
        # Scans have levels of ink from 0 to 16.
        yield render(scans[scan] / 16, states), label


def _plan_clips(split: str, count: int) -> Iterator[tuple[int, np.ndarray, int]]:
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
    scan_of_clip = [scan for scan, _, _ in _plan_clips('train', count)]
    return is_held_out[scan_of_clip]


def write_moving_digits(folder: str | Path, counts: dict[str, int] = CLIPS) -> Path:
    """Write the data set: videos and ``{train,val,test}.txt``, mmaction2's lists.

    A folder that holds it already is left as it is. It appears as a whole, so
    that nobody else sees half of it.

    Args:
        folder (str | Path): The output folder.
        counts (dict[str, int]): Clips of each split.

    Returns:
        Path: ``folder``.

    Raises:
        UserError: The folder holds something else.
    """
    recipe = dict(
        size=SIZE, frames=FRAMES, fps=FPS, sides=SIDES, steps=STEPS, clips=dict(counts)
    )

    def write(partial: Path) -> None:
        for split, count in counts.items():
            _write_split(partial, split, count)

    return write_once(folder, recipe, 'moving digits', write)


def _write_split(folder: Path, split: str, count: int) -> None:
    """Draw the clips of a split, and write a video of each and their list.

    Args:
        folder (Path): Gets a folder of videos, ``<split>/``, and the list
            ``<split>.txt`` with a line 'name label' for each.
        split (str): 'train', 'val' or 'test'.
        count (int): How many clips.
    """
    (folder / split).mkdir()
    # All names have as many digits as the largest number.
    width = len(str(max(count - 1, 1)))
    lines = []
    # disable=None: no bar where the output is no terminal.
    progress = tqdm(
        clips(split, count),
        desc=f'drawing clips to {split}',
        total=count,
        disable=None,
    )
    for number, (frames, label) in enumerate(progress):
        name = f'{split}/{number:0{width}d}.mp4'
        write_video(folder / name, frames, FPS)
        lines.append(f'{name} {label}\n')
    (folder / f'{split}.txt').write_text(''.join(lines))


@DATASETS.register_module()
class MovingDigitsDataset(CheckedVideoDataset):
    """Moving handwritten digits, written once and then read as any video list.

    Args:
        split (str): 'train', 'val' or 'test'; with ``split_seed`` also 'fit'.
        data_root (str): The folder of the videos and lists, which are written there if
            they are missing (a few seconds).
        clips (dict[str, int]): Clips of each split, by default :data:`CLIPS`.
        split_seed (int, optional): Cuts 'train' in two, 'fit' and 'val' (the clips of a
            fifth of its scans). By default 'val' has clips of its own.
        **kwargs: Passed to :class:`CheckedVideoDataset`.

    Raises:
        UserError: There is no such split, or ``data_root`` holds something else.
    """

    METAINFO = dict(classes=CLASSES)
    makes_files = True

    def __init__(
        self,
        split: str = 'train',
        data_root: str = 'data/moving-digits',
        clips: dict = CLIPS,
        split_seed: int | None = None,
        **kwargs,
    ) -> None:
        splits = tuple(CLIPS)
        if split_seed is not None:
            splits = ('fit', *CLIPS)
        check('dataset.split', split, choices=splits)
        self.split = split
        # Of a part of the training clips; else None.
        self.part_seed = split_seed if split in ('fit', 'val') else None
        listed_as = split if self.part_seed is None else 'train'
        # Only one process writes the videos, unless they are there; the others wait for it.
        if is_main_process():
            write_moving_digits(data_root, clips)
        barrier()
        super().__init__(
            ann_file=f'{data_root}/{listed_as}.txt',
            data_prefix=dict(video=data_root),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Return path and label of each video of the split."""
        data_list = super().load_data_list()
        if self.part_seed is None:
            return data_list
        is_val = draw_val_clips(len(data_list), self.part_seed)
        wanted = np.flatnonzero(is_val == (self.split == 'val'))
        return [data_list[place] for place in wanted]
