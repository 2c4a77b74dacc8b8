"""Moving handwritten digits, written as videos: a small, real video data set.

They demonstrate video training without a download. The files are H.264 as real videos
are, so that lists, decoders, sampling and testing over several views are those of a
real data set.
"""

from pathlib import Path

import numpy as np
from mmengine.dist import barrier, is_main_process
from tqdm import tqdm

from lm4ve.data.generated import write_once
from lm4ve.demo_data import moving_digits as drawn
from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.video.datasets.video_files import write_video
from lm4ve.tasks.video.datasets.video_lists import CheckedVideoDataset

#: Clips of each split.
CLIPS = dict(train=8000, val=400, test=800)


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
        size=drawn.SIZE,
        frames=drawn.FRAMES,
        fps=drawn.FPS,
        sides=drawn.SIDES,
        steps=drawn.STEPS,
        clips=dict(counts),
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
        drawn.clips(split, count),
        desc=f'drawing clips to {split}',
        total=count,
        disable=None,
    )
    for number, (frames, label) in enumerate(progress):
        name = f'{split}/{number:0{width}d}.mp4'
        write_video(folder / name, frames, drawn.FPS)
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

    METAINFO = dict(classes=drawn.CLASSES)
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
        is_val = drawn.draw_val_clips(len(data_list), self.part_seed)
        wanted = np.flatnonzero(is_val == (self.split == 'val'))
        return [data_list[place] for place in wanted]
