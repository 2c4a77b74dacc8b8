"""The moving digits as a data set: written once, then read as any video list."""

import os.path as osp

from mmengine.dist import barrier, is_main_process

from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.video.datasets.video_lists import CheckedVideoDataset
from lm4ve.tasks.video.demo.moving_digits import CLASSES, CLIPS, write_moving_digits


@DATASETS.register_module()
class MovingDigitsDataset(CheckedVideoDataset):
    """Moving handwritten digits (:mod:`lm4ve.tasks.video.demo.moving_digits`).

    Args:
        split (str): 'train', 'val' or 'test'.
        data_root (str): The folder of the videos and lists, which are written there if they are
            missing (a few seconds).
        clips (dict[str, int]): Clips of each split.
        **kwargs: Passed to :class:`CheckedVideoDataset`.

    Raises:
        UserError: There is no such split, or ``data_root`` holds something else.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(
        self,
        split: str = 'train',
        data_root: str = 'data/moving-digits',
        clips: dict = CLIPS,
        **kwargs,
    ) -> None:
        check('dataset.split', split, choices=CLIPS)
        if is_main_process():
            write_moving_digits(data_root, clips)
        barrier()
        super().__init__(
            ann_file=osp.join(data_root, f'{split}.txt'),
            data_prefix=dict(video=data_root),
            **kwargs,
        )
