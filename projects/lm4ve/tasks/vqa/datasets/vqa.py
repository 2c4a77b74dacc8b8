"""Data sets of visual question answering: VQAv2, Visual Genome, and your own.

VQAv2 (arXiv 1612.00837; visualqa.org): questions and annotations are two JSON files
that belong together by question ids; images are COCO's.
"""

import math
import os.path as osp
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from lm4ve.errors import brief, check, require
from lm4ve.registry import DATASETS, HOOKS
from lm4ve.tasks.vqa.datasets.answers import majority, normalize_answer, read_vocabulary
from lm4ve.tasks.vqa.datasets.image_text import ImageTextDataset
from lm4ve.text.annotation_files import (
    check_pairs,
    check_unique,
    naming_file,
    read_json,
    read_rows,
    texts_of,
)

#: What a question may have beside its image, text and answers.
KNOWN = ('question_id', 'image_id', 'question_type', 'answer_type')
SPLITS = ('train2014', 'val2014', 'test2015', 'test-dev2015')

#: Fields of a sample with several questions that are lists with an entry for each.
PER_QUESTION = ('gt_answers', 'question_id', 'question_type', 'answer_type')


def group_by_image(entries: list[dict]) -> list[dict]:
    """Put the questions about each image together.

    Args:
        entries (list[dict]): One a question.

    Returns:
        list[dict]: One an image, in the order of their first questions: ``text`` has
        the Q questions; ``gt_answers``, ``question_id`` and types are lists with one
        entry a question.
    """
    groups: dict[str, list[dict]] = {}
    for entry in entries:
        groups.setdefault(entry['img_path'], []).append(entry)
    return [_join_questions(group) for group in groups.values()]


def _join_questions(group: list[dict]) -> dict:
    """Return one entry of several about one image."""
    joined = dict(group[0])
    joined['text'] = []
    for entry in group:
        joined['text'] += entry['text']
    for key in PER_QUESTION:
        if key in group[0]:
            joined[key] = [entry.get(key) for entry in group]
    return joined


def draw_questions(
    entry: dict, count: int, answers: Collection[str] | None = None
) -> dict:
    """Draw some of an image's questions; all, and some again, where it has fewer.

    Draws come from numpy's global generator, which the suite seeds for every batch.

    Args:
        entry (dict): One entry of what :func:`group_by_image` returns.
        count (int): How many questions.
        answers (Collection[str], optional): Draw from questions with one of these
            answers, if the image has any.
    """
    candidates = list(range(len(entry['text'])))
    if answers is not None:
        preferred = set(answers)
        with_preferred = []
        for i, gt_answers in enumerate(entry['gt_answers']):
            if not preferred.isdisjoint(gt_answers):
                with_preferred.append(i)
        if with_preferred:
            candidates = with_preferred
    num_rounds = math.ceil(count / len(candidates))
    rounds = [np.random.permutation(candidates) for _ in range(num_rounds)]
    chosen = np.concatenate(rounds)[:count].tolist()
    drawn = dict(entry)
    for key in ('text', *PER_QUESTION):
        if key in entry:
            drawn[key] = [entry[key][i] for i in chosen]
    return drawn


class VQADataset(ImageTextDataset):
    """Questions about images. A subclass says what its files hold.

    Args:
        *args: Passed to :class:`lm4ve.tasks.vqa.ImageTextDataset`.
        vocabulary (str or sequence of str, optional): The answers that the model
            chooses from, as ``VQAHead`` takes them. In training, questions none of
            whose answers is among them are left out and counted; a test keeps them.
        questions_per_image (int, optional): In training a sample is an image with so
            many of its questions, drawn anew each time. Default: a sample is a
            question.
        **kwargs: Passed on as well.

    An entry has ``img_path``, ``text`` (``[question]``), ``question_id``,
    ``gt_answers`` (list[str], empty where they are unknown), and ``image_id``,
    ``question_type`` and ``answer_type`` where they are known. With several questions,
    all but ``image_id`` are lists with an entry for each.

    Raises:
        UserError: Files are missing, damaged or of another kind; question ids occur
            twice; an image lies outside of its folder; nothing is left.
    """

    #: With several questions an image: draw those with one of these answers; None draws
    #: from all. Set by :class:`AskFirstHook`.
    preferred_answers: frozenset[str] | None = None

    def __init__(
        self,
        *args: Any,
        vocabulary: str | Sequence[str] | None = None,
        questions_per_image: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Before the base's constructor, which loads the questions and reads these.
        kinds = (int, type(None))
        check('dataset.questions_per_image', questions_per_image, kind=kinds, least=1)
        self.questions_per_image = questions_per_image
        self.vocabulary = None
        if vocabulary is not None:
            self.vocabulary = frozenset(read_vocabulary(vocabulary))
        super().__init__(*args, **kwargs)

    def load_questions(self) -> Iterable[dict]:
        """Yield one dict a question.

        Its entries: ``image`` (str, below the image folder), ``question`` (str),
        ``answers`` (list[str]), and if they are known ``question_id``, ``image_id``,
        ``question_type`` and ``answer_type``.
        """
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Return an entry for each question of the files, or for each image with questions."""
        data_list = self._load_entries()
        check_unique([entry['question_id'] for entry in data_list], self.ann_file)
        data_list = self._with_answers(data_list)
        self.refuse_nothing(data_list)
        self.check_some_images([entry['img_path'] for entry in data_list])
        if self._groups:
            return group_by_image(data_list)
        return data_list

    def _load_entries(self) -> list[dict]:
        """Return an entry for each question; without empty ones, unless this is a test."""
        entries = []
        empty = []
        total = 0
        paths: dict[str, str] = {}
        with naming_file(self.ann_file, 'dataset.ann_file'):
            for total, row in enumerate(self.load_questions(), start=1):
                known = {key: row[key] for key in KNOWN if row.get(key) is not None}
                known.setdefault('question_id', total - 1)
                name = f'question {known["question_id"]}'
                where = f"'{self.ann_file}', {name}"
                # As written: METER's tokens include those of spaces at the ends.
                text = row['question']
                self.check_texts([text, *row['answers']], where)
                if not text.strip():
                    empty.append(name)
                    # An evaluation server wants an answer to each of its questions.
                    if not self.test_mode:
                        continue
                image = row['image']
                if image not in paths:  # many questions are about one image
                    paths[image] = self.image_path(image, where)
                entry = dict(
                    img_path=paths[image],
                    text=[text],
                    gt_answers=list(row['answers']),
                )
                entries.append(entry | known)
        if not self.test_mode or self.on_corrupt == 'refuse':
            self.leave_out('have an empty question', empty, total)
        return entries

    def _with_answers(self, data_list: list[dict]) -> list[dict]:
        """Leave out, in training, questions without an answer in the vocabulary."""
        if self.vocabulary is None or self.test_mode:
            return data_list
        kept = []
        for entry in data_list:
            if not self.vocabulary.isdisjoint(entry['gt_answers']):
                kept.append(entry)
        print_log(
            f'{type(self).__name__}: {len(kept)} of {len(data_list)} questions have an answer of '
            'the vocabulary; the others are left out.',
            'current',
        )
        return kept

    @property
    def _groups(self) -> bool:
        """Whether a sample is an image with several questions: only in training."""
        return self.questions_per_image is not None and not self.test_mode

    def get_data_info(self, idx: int) -> dict:
        """Return an entry; in training with several questions an image, a draw of them."""
        info = super().get_data_info(idx)
        if self.questions_per_image is None or not self._groups:
            return info
        return draw_questions(info, self.questions_per_image, self.preferred_answers)


@DATASETS.register_module()
class VQAv2(VQADataset):
    """VQAv2 in its official files::

        <data_root>/vqav2/v2_OpenEnded_mscoco_<split>_questions.json
        <data_root>/vqav2/v2_mscoco_<split>_annotations.json
        <data_root>/<train2014, val2014 or test2015>/COCO_<...>_<12 digits>.jpg

    Args:
        split (str): 'train2014', 'val2014', 'test2015' or 'test-dev2015'. The tests
            have no annotations.
        data_root (str): The folder of COCO's images.
        **kwargs: Passed to :class:`VQADataset`. ``test_mode`` is on unless the split is
            'train2014'.

    Raises:
        UserError: The files are of another split, of VQA v1, of multiple-choice
            questions or of another kind; annotations are missing, left over, or of
            another image; question ids occur twice.
    """

    def __init__(self, split: str, data_root: str = 'data/coco', **kwargs: Any) -> None:
        check('dataset.split', split, choices=SPLITS)
        self.split = split
        self.images = split.replace('test-dev', 'test')
        kwargs.setdefault('test_mode', split != 'train2014')
        ann_file = ''
        if not split.startswith('test'):
            ann_file = f'vqav2/v2_mscoco_{split}_annotations.json'
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(img_path=self.images),
            **kwargs,
        )

    def load_questions(self) -> Iterator[dict]:
        """Yield the questions with the answers of their annotators."""
        # {"data_subtype": "train2014", "task_type": "Open-Ended", "questions": [
        #   {"image_id": 262144, "question": "Is the ball flying?",
        #    "question_id": 262144000}]}
        file = f'vqav2/v2_OpenEnded_mscoco_{self.split}_questions.json'
        question_file = osp.join(self.data_root, file)
        questions = read_official(question_file, 'questions', self.split)
        annotations: dict[int, dict] = {}
        if self.ann_file:
            # {"data_subtype": "train2014", "annotations": [
            #   {"question_id": 262144000, "image_id": 262144,
            #    "question_type": "is the", "answer_type": "yes/no",
            #    "multiple_choice_answer": "yes", "answers": [
            #      {"answer": "yes", "answer_confidence": "yes", "answer_id": 1}, ...]}]}
            annotations = read_official(self.ann_file, 'annotations', self.split)
            check_pairs(questions, annotations, question_file, self.ann_file)
        unknown: dict = dict(answers=[])
        for question_id, question in questions.items():
            row = annotations.get(question_id, unknown) | question
            row['image'] = f'COCO_{self.images}_{question["image_id"]:012d}.jpg'
            row['answers'] = [answer['answer'] for answer in row['answers']]
            yield row


def read_official(path: str, key: str, split: str | None = None) -> dict[int, dict]:
    """Read an official file of VQAv2.

    Args:
        path (str): The file.
        key (str): 'questions' or 'annotations'.
        split (str, optional): The split that the file has to be of.

    Returns:
        dict[int, dict]: Question id -> entry.

    Raises:
        UserError: It is damaged, of another split, of VQA v1 or of multiple-choice
            questions, or has a question id twice.
    """
    field = f'dataset: {key}'
    content = read_json(path, dict, field)
    with naming_file(path, field):
        ids = [entry['question_id'] for entry in content[key]]
        found = dict(zip(ids, content[key], strict=True))
        header = dict(content, version=content.get('info', {}).get('version', '2.0'))
    expected = dict(task_type='Open-Ended', version='2.0')
    if split is not None:
        expected['data_subtype'] = split
    for name, value in expected.items():
        stated = header.get(name, value)
        require(
            stated == value,
            f"{field}: '{path}' has {name}={brief(repr(stated))}, not {value!r}. Fix: the file of "
            'VQA v2 for this split.',
        )
    check_unique(ids, path)
    return found


@DATASETS.register_module()
class VQAFiles(VQADataset):
    """Questions of a CSV file with a header, or of JSON lines::

        image,question,answer
        kitchen/1.jpg,How many cups are there?,2

    Columns: ``image`` (below the image folder), ``question``, and ``answer`` or
    ``answers`` (in CSV with ``|`` between them; in JSON a list; several annotators may
    give the same). ``question_id``, ``question_type``, ``answer_type`` and ``image_id``
    are optional, others are not read. A file without answers is for predictions.

    Args:
        ann_file (str): Ends in .csv, .tsv, .jsonl or .json (JSON lines).
        **kwargs: Passed to :class:`VQADataset`.

    Raises:
        UserError: A column is missing or a row is damaged.
    """

    def load_questions(self) -> Iterator[dict]:
        """Yield the rows."""
        return read_question_rows(self.ann_file)


def read_question_rows(path: str) -> Iterator[dict]:
    """Yield the rows of a file of questions, as :meth:`VQADataset.load_questions` does."""
    for line, row in read_rows(path, 'dataset.ann_file'):
        where = f"{line} of '{path}'"
        check(f'{where}: image', row.get('image'), kind=str)
        check(f'{where}: question', row.get('question'), kind=str)
        answers = texts_of(row, 'answer', 'answers', where)
        found = dict(
            image=row['image'], question=row['question'], answers=answers or []
        )
        for column in KNOWN:
            value = row.get(column)
            if value not in (None, ''):
                check(f'{where}: {column}', value, kind=(str, int))
                found[column] = value
        # CSV has no numbers, and an evaluation server may want its ids as such.
        question_id = str(found.get('question_id', ''))
        if re.fullmatch(r'(0|[1-9][0-9]{0,17})', question_id):
            found['question_id'] = int(question_id)
        yield found


def read_answers(path: str) -> list[tuple[str, list[str]]]:
    """Return the majority's answer and all answers of each question that has one.

    Args:
        path (str): VQAv2's annotations (.json), or a file of :class:`VQAFiles` with
            another ending.
    """
    found = []
    if path.endswith('.json'):
        annotations = read_official(path, 'annotations').values()
        with naming_file(path, 'annotations'):
            for annotation in annotations:
                answers = [answer['answer'] for answer in annotation['answers']]
                found.append((annotation['multiple_choice_answer'], answers))
        return found
    for row in read_question_rows(path):
        answers = row['answers']
        if answers:
            found.append((majority(answers), answers))
    return found


@DATASETS.register_module()
class VisualGenomeQA(VQADataset):
    """Questions of Visual Genome (arXiv 1602.07332), with one answer each, for VQAv2's training::

        <data_root>/question_answers.json
        <data_root>/VG_100K/<image id>.jpg, <data_root>/VG_100K_2/<image id>.jpg

    Its answers are sentences ("Orange."); they are normalized as VQA's evaluation does,
    so that they match a vocabulary of VQAv2. About half of its images are among those
    of COCO's training and validation sets: do not validate on VQAv2's val2014 with it.

    Args:
        data_root (str): The folder of the data set.
        **kwargs: Passed to :class:`VQADataset`.

    Raises:
        UserError: The file is of another kind or damaged; no image is there.
    """

    def __init__(self, data_root: str = 'data/visual_genome', **kwargs: Any) -> None:
        super().__init__(
            ann_file='question_answers.json', data_root=data_root, **kwargs
        )

    def load_questions(self) -> Iterator[dict]:
        """Yield the questions of all images."""
        # [{"id": 1, "qas": [
        #   {"qa_id": 986769, "image_id": 1, "question": "What is orange?",
        #    "answer": "The man's shirt."}, ...]}, ...]
        # The annotations do not hold the folder of an image.
        folder = Path(self.data_prefix['img_path'], 'VG_100K_2')
        in_second = {path.name for path in folder.glob('*')}
        for entry in read_json(self.ann_file, list, 'dataset.ann_file'):
            for question in entry['qas']:
                row = dict(question)
                row['question_id'] = question['qa_id']
                name = f'{question["image_id"]}.jpg'
                part = 'VG_100K_2' if name in in_second else 'VG_100K'
                row['image'] = f'{part}/{name}'
                answer = normalize_answer(question['answer'])
                row['answers'] = [answer] if answer else []
                yield row


@HOOKS.register_module()
class AskFirstHook(Hook):
    """Train the first epochs on questions with some answers only, then on all questions.

    For data sets with several questions an image. A small image encoder that starts at
    random finds shapes when it is asked to name them; among questions that are mostly
    to be answered with yes or no it does not.

    Args:
        answers (Sequence[str]): The first epochs have questions with one of these
            answers. Of an image without such a question they may have any.
        epochs (int): How many epochs.
    """

    def __init__(self, answers: Sequence[str], epochs: int) -> None:
        self.answers = frozenset(answers)
        self.epochs = epochs

    def before_train_epoch(self, runner: Runner) -> None:
        """Let the data set prefer questions with ``answers``, or no longer after ``epochs``.

        Raises:
            UserError: The data set has one question a sample, or its workers outlive an
                epoch and would not see the change.
        """
        loader = runner.train_dataloader
        count = getattr(loader.dataset, 'questions_per_image', None)
        check(
            'train_dataloader.dataset.questions_per_image with AskFirstHook',
            count,
            kind=int,
        )
        require(
            not (loader.num_workers and loader.persistent_workers),
            'train_dataloader.persistent_workers=True does not go with AskFirstHook, since workers '
            'that stay do not see its changes. Fix: train_dataloader.persistent_workers=False.',
        )
        preferred = self.answers if runner.epoch < self.epochs else None
        loader.dataset.preferred_answers = preferred
