"""easy-vqa, for seeing visual question answering train without a download."""

from collections.abc import Iterator
from typing import Any

from lm4ve.demo_data.easy_vqa import ANSWERS, SPLITS, is_in_split, locate_easy_vqa
from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.vqa.datasets.vqa import VQADataset
from lm4ve.tasks.vqa.transforms import BlankImage
from lm4ve.text.annotation_files import read_json


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
        check('dataset.split', split, choices=SPLITS)
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
            if not is_in_split(image, self.split):
                continue
            yield dict(
                image=f'{image}.png',
                question=question,
                answers=[answer],
                question_id=number,
                image_id=image,
                answer_type='yes/no' if answer in ('yes', 'no') else 'other',
            )
