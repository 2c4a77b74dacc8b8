"""easy-vqa: 5,000 small pictures and 48,248 questions that come as a Python package.

Real public data that nobody here made, for seeing visual question answering train
without a download: https://github.com/vzhou842/easy-VQA, version 1.0, MIT license. Each
picture has one shape in one color; the 13 answers are shapes, colors, yes and no.

The package's files are found through its metadata and nothing of it is imported: its
wheel also installs a top-level package ``test``.
"""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from lm4ve.errors import check, require
from lm4ve.registry import DATASETS, TRANSFORMS
from lm4ve.tasks.vqa.datasets.vqa import VQADataset
from lm4ve.text.annotation_files import read_json

#: The answers, in the order of the package's ``answers.txt``.
ANSWERS = (
    'circle',
    'green',
    'red',
    'gray',
    'yes',
    'teal',
    'black',
    'rectangle',
    'yellow',
    'triangle',
    'brown',
    'blue',
    'no',
)
#: The training images from this one on, with their questions, are for choosing
#: settings.
FIRST_VAL = 3600


def locate_easy_vqa() -> Path:
    """Return the folder of the installed package's data, of version 1.0.

    Raises:
        PackageNotFoundError: The package is not installed.
        UserError: It is another version.
    """
    package = importlib.metadata.distribution('easy-vqa')
    require(
        package.version == '1.0',
        f"the version of the package easy-vqa is {package.version}, but the demo's data is that of "
        "1.0. Fix: pip install 'easy-vqa==1.0'.",
    )
    return Path(str(package.locate_file('easy_vqa/data')))


@DATASETS.register_module()
class EasyVQA(VQADataset):
    """Questions about the shape and the color in a picture of 64 x 64 pixels.

    Args:
        split (str): 'train' (4,000 images, 38,575 questions) or 'test' (1,000 and
            9,673). For choosing settings without the test split, 'train' itself is cut
            in two: 'fit' (its first 3,600 images) and 'val' (the last 400).
        blank_images (bool): Every picture is one gray. A model trained and tested so
            sees the questions only, which is the control that pictures are needed.
        **kwargs: Passed to :class:`lm4ve.tasks.vqa.VQADataset`.

    Raises:
        UserError: There is no such split, or the package is missing or another one.
    """

    METAINFO = dict(classes=ANSWERS)

    def __init__(
        self, split: str = 'train', blank_images: bool = False, **kwargs: Any
    ) -> None:
        check('dataset.split', split, choices=('train', 'fit', 'val', 'test'))
        self.split = split
        part = 'test' if split == 'test' else 'train'
        kwargs.setdefault('test_mode', split in ('val', 'test'))
        super().__init__(
            ann_file=f'{part}/questions.json',
            data_root=str(locate_easy_vqa()),
            data_prefix=dict(img_path=f'{part}/images'),
            **kwargs,
        )
        if blank_images:
            # Right after the file was read.
            self.pipeline.transforms.insert(1, BlankImage())

    def load_questions(self) -> Iterator[dict]:
        """Yield the questions of the split; ids are places in the package's list."""
        rows = read_json(self.ann_file, list, 'dataset.ann_file')
        for number, (question, answer, image) in enumerate(rows):
            if not self._has(image):
                continue
            yield dict(
                image=f'{image}.png',
                question=question,
                answers=[answer],
                question_id=number,
                image_id=image,
                answer_type='yes/no' if answer in ('yes', 'no') else 'other',
            )

    def _has(self, image: int) -> bool:
        """Return whether the split has an image of the package's part, by its number."""
        if self.split == 'fit':
            return image < FIRST_VAL
        if self.split == 'val':
            return image >= FIRST_VAL
        return True


@TRANSFORMS.register_module()
class BlankImage(BaseTransform):
    """Replace the pixels by one gray, for controls that see the texts only.

    Args:
        level (int): The gray, 0 to 255.
    """

    def __init__(self, level: int = 127) -> None:
        self.level = level

    def transform(self, results: dict) -> dict:
        results['img'] = np.full_like(results['img'], self.level)
        return results
