"""The digit scenes as data sets: written once, then read as anybody's files are."""

import os.path as osp
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process

from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.generated import write_once
from lm4ve.tasks.base.progress import progress
from lm4ve.tasks.vqa.datasets.retrieval import CaptionFiles
from lm4ve.tasks.vqa.datasets.vqa import VQAFiles
from lm4ve.tasks.vqa.demo.digit_scenes import SCENES, recipe, write_split

DATA_ROOT = 'data/digit-scenes'


def write_digit_scenes(folder: str | Path, counts: dict[str, int] = SCENES) -> Path:
    """Write the data set.

    ``<split>/*.png``, and as JSON lines ``<split>_captions.jsonl`` and
    ``<split>_questions.jsonl``, as :class:`CaptionFiles` and :class:`VQAFiles` read them;
    ``<split>_scenes.jsonl`` says which digit is in which cell.

    A folder that holds it already is left as it is. It appears as a whole, so that
    nobody else sees half of it.

    Args:
        folder (str | Path): Where to.
        counts (dict[str, int]): Scenes of each split.

    Returns:
        Path: ``folder``.

    Raises:
        UserError: The folder holds something else.
    """

    def write(partial: Path) -> None:
        for split in counts:
            write_split(partial, split, counts, progress)

    return write_once(folder, recipe(counts), 'digit scenes', write)


class _Written:
    """Writes the scenes before they are read.

    Args:
        split (str): 'train', 'val' or 'test'.
        data_root (str): Where they are; they are written there if they are not (seconds).
        scenes (dict[str, int]): Scenes of each split.
        **kwargs: Passed on. ``test_mode`` is on unless the split is 'train'.

    Raises:
        UserError: There is no such split, or ``data_root`` holds something else.
    """

    _kind = ''

    def __init__(
        self,
        split: str = 'train',
        data_root: str = DATA_ROOT,
        scenes: dict[str, int] = SCENES,
        **kwargs: Any,
    ) -> None:
        check('dataset.split', split, choices=tuple(SCENES))
        if is_main_process():
            write_digit_scenes(data_root, scenes)
        barrier()
        kwargs.setdefault('test_mode', split != 'train')
        ann_file = osp.join(data_root, f'{split}_{self._kind}.jsonl')
        super().__init__(ann_file=ann_file, data_prefix=dict(img_path=data_root), **kwargs)


@DATASETS.register_module()
class DigitScenes(_Written, CaptionFiles):
    """Captions of the scenes (:mod:`lm4ve.tasks.vqa.demo.digit_scenes`)."""

    __doc__ += (_Written.__doc__ or '').partition('\n')[2]
    _kind = 'captions'


@DATASETS.register_module()
class DigitScenesVQA(_Written, VQAFiles):
    """Questions about the scenes: yes or no, how many, and which digit lies where."""

    __doc__ += (_Written.__doc__ or '').partition('\n')[2]
    _kind = 'questions'
