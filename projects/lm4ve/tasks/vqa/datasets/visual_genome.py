"""Visual Genome's questions and answers (arXiv 1602.07332), more data for VQAv2."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from lm4ve.errors import UserError
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
    so that a vocabulary of VQAv2 knows them. About half of its images are among those of
    COCO's training and validation sets: do not validate on VQAv2's val2014 with it.

    Args:
        data_root (str): The folder of the data set.
        ann_file (str): Below ``data_root``.
        image_folders (sequence of str): Where an image may be, below ``data_root``.
        normalize (bool): Normalize the answers.
        **kwargs: Passed to :class:`lm4ve.tasks.vqa.VQADataset`.

    Raises:
        UserError: The file is of another kind or damaged; no folder of images is there.
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
        folder_of = self._list_images()
        for question in read_visual_genome(self.ann_file):
            image = question['image_id']
            folder = folder_of.get(f'{image}.jpg', self.image_folders[0])
            answer = question.pop('answer')
            answer = normalize_answer(answer) if self.normalize else answer.strip()
            yield dict(question, image=f'{folder}/{image}.jpg', answers=[answer] if answer else [])

    def _list_images(self) -> dict[str, str]:
        """Return the folder that each image lies in: their names do not say."""
        found = {}
        for name in self.image_folders:
            folder = os.path.join(self.image_folder, name)
            if os.path.isdir(folder):
                found |= dict.fromkeys(os.listdir(folder), name)
        if not found:
            raise UserError(
                f"'{self.image_folder}' has no images in {' or '.join(self.image_folders)}. Fix: "
                'unpack images.zip and images2.zip there, or set dataset.image_folders.'
            )
        return found


def read_visual_genome(path: str) -> Iterator[dict]:
    """Yield the questions of ``question_answers.json``.

    Args:
        path (str): The file.

    Yields:
        dict: ``question_id``, ``image_id`` (int), ``question``, ``answer`` (str).

    Raises:
        UserError: It is damaged or another file of the data set.
    """
    for number, image in enumerate(read_json(path, list, 'dataset.ann_file')):
        questions = image.get('qas') if isinstance(image, dict) else None
        if not isinstance(questions, list):
            raise UserError(
                f"dataset.ann_file: entry {number} of '{path}' has no list 'qas', so it is not "
                "Visual Genome's question_answers.json. Fix: name that file."
            )
        for q in questions:
            values = [q.get(k) if isinstance(q, dict) else None for k in ('qa_id', 'image_id')]
            texts = [q.get(k) if isinstance(q, dict) else None for k in ('question', 'answer')]
            if any(type(v) is not int or not 0 <= v < 2**63 for v in values) or any(
                not isinstance(t, str) for t in texts
            ):
                raise UserError(
                    f"dataset.ann_file: entry {number} of '{path}' has a question without qa_id "
                    'and image_id (numbers), question and answer (texts). Fix: fetch it again.'
                )
            names = 'question_id', 'image_id', 'question', 'answer'
            yield dict(zip(names, (*values, *texts), strict=True))
