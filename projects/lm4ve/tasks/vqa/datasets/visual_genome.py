"""Visual Genome's questions and answers (arXiv 1602.07332), more data for VQAv2."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm4ve.registry import DATASETS
from lm4ve.tasks.base.language.json_files import read_json
from lm4ve.tasks.vqa.answers import normalize_answer
from lm4ve.tasks.vqa.datasets.vqa import VQADataset


@DATASETS.register_module()
class VisualGenomeQA(VQADataset):
    """Questions of Visual Genome, with one answer each::

        <data_root>/question_answers.json
        <data_root>/VG_100K/<image id>.jpg, <data_root>/VG_100K_2/<image id>.jpg

    Its answers are sentences ("Orange."); they are normalized as VQA's evaluation does,
    so that they match a vocabulary of VQAv2. About half of its images are among those of
    COCO's training and validation sets: do not validate on VQAv2's val2014 with it.

    Args:
        data_root (str): The folder of the data set.
        ann_file (str): Below ``data_root``.
        image_folders (sequence of str): Where an image may be, below ``data_root``.
        normalize (bool): Normalize the answers.
        **kwargs: Passed to :class:`lm4ve.tasks.vqa.VQADataset`.

    Raises:
        UserError: The file is of another kind or damaged; no image is there.
    """

    def __init__(
        self,
        data_root: str = 'data/visual_genome',
        ann_file: str = 'question_answers.json',
        image_folders: Sequence[str] = ('VG_100K', 'VG_100K_2'),
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        self.image_folders = tuple(image_folders)
        self.normalize = normalize
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    def load_questions(self) -> Iterator[dict]:
        """Yield the questions of all images."""
        # [{"id": 1, "qas": [{"qa_id": 986769, "image_id": 1, "question": "What is orange?",
        #                     "answer": "The man's shirt."}, ...]}, ...]
        folder_of = self._list_images()
        for image in read_json(self.ann_file, list, 'dataset.ann_file'):
            for q in image['qas']:
                name = f'{q["image_id"]}.jpg'
                answer = q['answer'].strip()
                answer = normalize_answer(answer) if self.normalize else answer
                yield dict(
                    question_id=q['qa_id'],
                    image_id=q['image_id'],
                    question=q['question'],
                    image=f'{folder_of.get(name, self.image_folders[0])}/{name}',
                    answers=[answer] if answer else [],
                )

    def _list_images(self) -> dict[str, str]:
        """Return the folder that each image lies in: the annotations do not hold it."""
        root = Path(self.data_prefix['img_path'])
        return {
            image: name
            for name in self.image_folders
            if (root / name).is_dir()
            for image in os.listdir(root / name)
        }
