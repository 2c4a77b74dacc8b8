"""Scenes of handwritten digits, as pictures with files of captions and questions.

For seeing retrieval and question answering train without a download. The files are
read as anybody's are.
"""

import json
import os.path as osp
from pathlib import Path
from typing import Any

import cv2
from mmengine.dist import barrier, is_main_process
from tqdm import tqdm

from lm4ve.data.generated import write_once
from lm4ve.demo_data import digit_scenes as drawn
from lm4ve.demo_data.digit_scenes import SCENES
from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.vqa.datasets.image_text import ImageTextDataset
from lm4ve.tasks.vqa.datasets.retrieval import CaptionFiles
from lm4ve.tasks.vqa.datasets.vqa import VQAFiles


def write_split(folder: Path, split: str, counts: dict[str, int]) -> None:
    """Write the pictures, captions and questions of a split.

    Args:
        folder (Path): Where ``<split>/*.png`` and
            ``<split>_{captions,questions,scenes}.jsonl`` appear.
        split (str): 'train', 'val' or 'test'.
        counts (dict[str, int]): Scenes of each split.
    """
    (folder / split).mkdir()
    count = counts[split]
    made = drawn.pictures(split, count, counts.get('train', 0))
    progress = tqdm(made, f'drawing scenes to {split}', count, disable=None)
    captions = []
    questions = []
    digits = []
    for number, (scene, picture) in enumerate(progress):
        name = f'{split}/{number:04d}.png'
        cv2.imwrite(str(folder / name), picture)
        captions.append(dict(image=name, captions=scene.captions))
        for question in scene.questions:
            questions.append(dict(image=name) | question)
        digits.append(dict(image=name, digits=scene.digits.tolist()))
    if count == 0:
        return
    _write_lines(folder / f'{split}_captions.jsonl', captions)
    _write_lines(folder / f'{split}_questions.jsonl', questions)
    _write_lines(folder / f'{split}_scenes.jsonl', digits)


def _write_lines(path: Path, rows: list[dict]) -> None:
    lines = [json.dumps(row) + '\n' for row in rows]
    path.write_text(''.join(lines), encoding='utf-8')


def write_digit_scenes(folder: str | Path, counts: dict[str, int] = SCENES) -> Path:
    """Write the data set.

    ``<split>/*.png``, and as JSON lines ``<split>_captions.jsonl`` and
    ``<split>_questions.jsonl``, as :class:`CaptionFiles` and :class:`VQAFiles` read
    them; ``<split>_scenes.jsonl`` has the digit of each cell.

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
    recipe = dict(
        version=1,
        scenes=dict(counts),
        grid=drawn.GRID,
        cell=drawn.CELL,
        digits=drawn.DIGITS,
        sides=drawn.SIDES,
        jitter=drawn.JITTER,
        ink=drawn.INK,
        captions=drawn.CAPTIONS,
        facts=drawn.FACTS,
        questions=drawn.QUESTIONS,
    )

    def write(empty_folder: Path) -> None:
        for split in counts:
            write_split(empty_folder, split, counts)

    return write_once(folder, recipe, 'digit scenes', write)


class _Written(ImageTextDataset):
    """Writes the scenes before they are read.

    Args:
        split (str): 'train', 'val' or 'test'.
        data_root (str): Where they are; they are written there if they are not
            (seconds).
        scenes (dict[str, int]): Scenes of each split.
        **kwargs: Passed on. ``test_mode`` is on unless the split is 'train'.

    Raises:
        UserError: There is no such split, or ``data_root`` holds something else.
    """

    _kind = ''
    makes_files = True

    def __init__(
        self,
        split: str = 'train',
        data_root: str = 'data/digit-scenes',
        scenes: dict[str, int] = SCENES,
        **kwargs: Any,
    ) -> None:
        check('dataset.split', split, choices=tuple(SCENES))
        if is_main_process():
            write_digit_scenes(data_root, scenes)
        barrier()
        kwargs.setdefault('test_mode', split != 'train')
        ann_file = osp.join(data_root, f'{split}_{self._kind}.jsonl')
        super().__init__(
            ann_file=ann_file, data_prefix=dict(img_path=data_root), **kwargs
        )


@DATASETS.register_module()
class DigitScenes(_Written, CaptionFiles):
    """Captions of the scenes."""

    __doc__ += (_Written.__doc__ or '').partition('\n')[2]
    _kind = 'captions'


@DATASETS.register_module()
class DigitScenesVQA(_Written, VQAFiles):
    """Questions about the scenes: yes or no, how many, and which digit lies where."""

    __doc__ += (_Written.__doc__ or '').partition('\n')[2]
    _kind = 'questions'
