"""Data sets of visual question answering: VQAv2, Visual Genome, and your own.

VQAv2 (arXiv 1612.00837; visualqa.org): questions and annotations are two JSON files
that belong together by question ids; images are COCO's.
"""

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

#: What a sample has one of for each of its questions.
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
    return [
        dict(
            group[0],
            text=[text for e in group for text in e['text']],
            **{k: [e.get(k) for e in group] for k in PER_QUESTION if k in group[0]},
        )
        for group in groups.values()
    ]


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
    candidates: Sequence[int] = range(len(entry['text']))
    if answers is not None:
        fits = [
            i for i in candidates if not set(answers).isdisjoint(entry['gt_answers'][i])
        ]
        candidates = fits or candidates
    rounds = [
        np.random.permutation(candidates) for _ in range(-(-count // len(candidates)))
    ]
    chosen = np.concatenate(rounds)[:count].tolist()
    drawn = {
        k: [entry[k][i] for i in chosen] for k in ('text', *PER_QUESTION) if k in entry
    }
    return dict(entry, **drawn)


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

    #: Of several questions an image, those with one of these answers; set by a hook.
    asked: frozenset[str] | None = None

    def __init__(
        self,
        *args: Any,
        vocabulary: str | Sequence[str] | None = None,
        questions_per_image: int | None = None,
        **kwargs: Any,
    ) -> None:
        kinds = int, type(None)
        check('dataset.questions_per_image', questions_per_image, kind=kinds, least=1)
        self.questions_per_image = questions_per_image
        self.vocabulary = (
            None if vocabulary is None else frozenset(read_vocabulary(vocabulary))
        )
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
        data_list, empty, total, paths = [], [], 0, {}
        with naming_file(self.ann_file, 'dataset.ann_file'):
            for total, q in enumerate(self.load_questions(), 1):
                known = {k: q[k] for k in KNOWN if q.get(k) is not None}
                known.setdefault('question_id', total - 1)
                # As written: METER's tokens include those of spaces at the ends.
                where, text = f'question {known["question_id"]}', q['question']
                self.check_texts([text, *q['answers']], f"'{self.ann_file}', {where}")
                if not text.strip():
                    empty.append(where)
                # An evaluation server wants an answer to each of its questions.
                if text.strip() or self.test_mode:
                    image = q['image']
                    if image not in paths:  # many questions are about one image
                        paths[image] = self.image_path(
                            image, f"'{self.ann_file}', {where}"
                        )
                    entry = dict(
                        img_path=paths[image],
                        text=[text],
                        gt_answers=list(q['answers']),
                    )
                    data_list.append(entry | known)
        if not self.test_mode or self.on_corrupt == 'refuse':
            self.leave_out('have an empty question', empty, total)
        check_unique([d['question_id'] for d in data_list], self.ann_file)
        if self.vocabulary is not None and not self.test_mode:
            total = len(data_list)
            data_list = [
                d for d in data_list if not self.vocabulary.isdisjoint(d['gt_answers'])
            ]
            text = f'{len(data_list)} of {total} questions have an answer of the vocabulary'
            print_log(
                f'{type(self).__name__}: {text}; the others are left out.', 'current'
            )
        self.refuse_nothing(data_list)
        self.check_some_images([d['img_path'] for d in data_list])
        return group_by_image(data_list) if self._groups else data_list

    @property
    def _groups(self) -> bool:
        return self.questions_per_image is not None and not self.test_mode

    def get_data_info(self, idx: int) -> dict:
        """Return an entry; with several questions, which are drawn here."""
        info = super().get_data_info(idx)
        if self.questions_per_image is None or not self._groups:
            return info
        return draw_questions(info, self.questions_per_image, self.asked)


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
        self.split, self.images = split, split.replace('test-dev', 'test')
        kwargs.setdefault('test_mode', split != 'train2014')
        ann_file = (
            ''
            if split.startswith('test')
            else f'vqav2/v2_mscoco_{split}_annotations.json'
        )
        prefix = dict(img_path=self.images)
        super().__init__(
            ann_file=ann_file, data_root=data_root, data_prefix=prefix, **kwargs
        )

    def load_questions(self) -> Iterator[dict]:
        """Yield the questions with the answers of their annotators."""
        # {"data_subtype": "train2014", "task_type": "Open-Ended", "questions": [
        #   {"image_id": 262144, "question": "Is the ball flying?", "question_id":
        # 262144000}]}
        file = f'vqav2/v2_OpenEnded_mscoco_{self.split}_questions.json'
        question_file = osp.join(self.data_root, file)
        questions = read_official(question_file, 'questions', self.split)
        annotations: dict[int, dict] = {}
        if self.ann_file:
            # {"data_subtype": "train2014", "annotations": [
            #   {"question_id": 262144000, "image_id": 262144, "question_type": "is
            # the",
            #    "answer_type": "yes/no", "multiple_choice_answer": "yes",
            #    "answers": [{"answer": "yes", "answer_confidence": "yes", "answer_id":
            # 1}, ...]}]}
            annotations = read_official(self.ann_file, 'annotations', self.split)
            check_pairs(questions, annotations, question_file, self.ann_file)
        for question_id, q in questions.items():
            known = dict(annotations.get(question_id, dict(answers=[])), **q)
            image = f'COCO_{self.images}_{q["image_id"]:012d}.jpg'
            yield dict(
                known, image=image, answers=[a['answer'] for a in known['answers']]
            )


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
        ids = [e['question_id'] for e in content[key]]
        found = dict(zip(ids, content[key], strict=True))
        header = dict(content, version=content.get('info', {}).get('version', '2.0'))
    expected = dict(task_type='Open-Ended', version='2.0')
    for name, value in (
        expected if split is None else dict(expected, data_subtype=split)
    ).items():
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
    for where, row in read_rows(path, 'dataset.ann_file'):
        for column in ('image', 'question'):
            check(f"{where} of '{path}': {column}", row.get(column), kind=str)
        answers = texts_of(row, 'answer', 'answers', f"{where} of '{path}'") or []
        known = {k: row[k] for k in KNOWN if row.get(k) not in (None, '')}
        for column, value in known.items():
            check(f"{where} of '{path}': {column}", value, kind=(str, int))
        # CSV has no numbers, and an evaluation server may want its ids as such.
        if re.fullmatch(r'(0|[1-9][0-9]{0,17})', str(known.get('question_id', ''))):
            known['question_id'] = int(known['question_id'])
        yield dict(
            image=row['image'], question=row['question'], answers=answers, **known
        )


def read_answers(path: str) -> list[tuple[str, list[str]]]:
    """Return the majority's answer and all answers of each question that has one.

    Args:
        path (str): VQAv2's annotations (.json), or a file of :class:`VQAFiles` with
            another ending.
    """
    if path.endswith('.json'):
        found = read_official(path, 'annotations').values()
        with naming_file(path, 'annotations'):
            return [
                (a['multiple_choice_answer'], [g['answer'] for g in a['answers']])
                for a in found
            ]
    answers = [row['answers'] for row in read_question_rows(path)]
    return [(majority(a), a) for a in answers if a]


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
        # [{"id": 1, "qas": [{"qa_id": 986769, "image_id": 1, "question": "What is
        # orange?",
        #                     "answer": "The man's shirt."}, ...]}, ...]
        # The annotations do not hold the folder of an image.
        second = {
            p.name for p in Path(self.data_prefix['img_path'], 'VG_100K_2').glob('*')
        }
        for entry in read_json(self.ann_file, list, 'dataset.ann_file'):
            for q in entry['qas']:
                name, answer = f'{q["image_id"]}.jpg', normalize_answer(q['answer'])
                image = f'VG_100K_2/{name}' if name in second else f'VG_100K/{name}'
                answers = [answer] if answer else []
                yield dict(q, question_id=q['qa_id'], image=image, answers=answers)


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
        self.answers, self.epochs = frozenset(answers), epochs

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the answers of the epoch's questions in the data set.

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
        loader.dataset.asked = self.answers if runner.epoch < self.epochs else None
