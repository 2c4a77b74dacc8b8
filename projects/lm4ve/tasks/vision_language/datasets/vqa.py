"""Data sets of visual question answering: VQAv2's official files, and anybody's own.

VQAv2 (arXiv 1612.00837; visualqa.org): questions and annotations are two JSON files that
belong together by question ids; images are COCO's.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine.logging import print_log

from lm4ve.engine.text import listing
from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.tasks.vision_language.datasets.image_text import ImageTextDataset
from lm4ve.tasks.vision_language.datasets.json_files import (
    read_entries,
    read_json,
    read_rows,
    texts_of,
)
from lm4ve.tasks.vision_language.datasets.vocabulary import read_vocabulary

#: Split -> the one whose images it asks about.
VQA_SPLITS = {
    'train2014': 'train2014',
    'val2014': 'val2014',
    'test2015': 'test2015',
    'test-dev2015': 'test2015',
}


class VQADataset(ImageTextDataset):
    """Questions about images. A subclass says what its files hold.

    Args:
        *args: Passed to :class:`lm4ve.tasks.vision_language.ImageTextDataset`.
        vocabulary (str or sequence of str, optional): The answers that the model knows,
            as ``VQAHead`` takes them. In training, questions none of whose answers is
            among them are left out and counted; a test keeps them.
        **kwargs: Passed on as well.

    An entry has ``img_path``, ``text`` (``[question]``), ``question_id``, ``gt_answers``
    (list[str], empty where they are unknown), and ``image_id``, ``question_type`` and
    ``answer_type`` where they are known.

    Raises:
        UserError: Files are missing, damaged or of another kind; question ids occur
            twice; an image lies outside of its folder; nothing is left.
    """

    def __init__(
        self, *args: Any, vocabulary: str | Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        self.vocabulary = None if vocabulary is None else frozenset(read_vocabulary(vocabulary))
        super().__init__(*args, **kwargs)

    def load_questions(self) -> Iterable[dict]:
        """Yield one dict a question.

        Its entries: ``image`` (str, below the image folder), ``question`` (str),
        ``answers`` (list[str]), and if they are known ``question_id``, ``image_id``,
        ``question_type`` and ``answer_type``.
        """
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Return the questions of the files, checked."""
        self.check_image_folder()
        data_list, empty, total = [], [], 0
        for number, q in enumerate(self.load_questions()):
            total += 1
            question_id = q.get('question_id', number)
            question = q['question'].strip()
            if not question:
                empty.append(f'question {question_id}')
                if not self.test_mode or self.on_corrupt == 'refuse':
                    continue
            where = f"'{self.ann_file}', question {question_id}"
            entry = dict(
                img_path=self.image_path(q['image'], where),
                text=[question],
                question_id=question_id,
                gt_answers=list(q['answers']),
            )
            known = ('image_id', 'question_type', 'answer_type')
            data_list.append(entry | {k: q[k] for k in known if q.get(k) is not None})
        if empty and self.test_mode and self.on_corrupt != 'refuse':
            # An evaluation server wants an answer to each of its questions.
            print_log(
                f'{type(self).__name__}: {len(empty)} of {total} questions are empty and kept in '
                f'this test: {listing(empty)}.',
                logger='current',
                level=30,
            )
        else:
            self.leave_out('have an empty question', empty, total)
        self._check_ids(data_list)
        data_list = self._within_vocabulary(data_list)
        self.refuse_nothing(data_list)
        self.check_some_images([d['img_path'] for d in data_list])
        return data_list

    def _check_ids(self, data_list: list[dict]) -> None:
        counts = Counter(d['question_id'] for d in data_list)
        if len(counts) < len(data_list):
            twice = [q for q, n in counts.items() if n > 1]
            raise UserError(
                f"'{self.ann_file}' has {len(twice)} question id(s) more than once: "
                f'{listing(twice)}. Fix: give each question an id of its own.'
            )

    def _within_vocabulary(self, data_list: list[dict]) -> list[dict]:
        """Leave out, in training, questions that no answer of the vocabulary is right for."""
        if self.vocabulary is None or self.test_mode:
            return data_list
        kept = [d for d in data_list if not self.vocabulary.isdisjoint(d['gt_answers'])]
        print_log(
            f'{type(self).__name__}: {len(data_list) - len(kept)} of {len(data_list)} questions '
            f'have no answer among the {len(self.vocabulary)} of the vocabulary and are left out '
            'of the training.',
            logger='current',
        )
        return kept


@DATASETS.register_module()
class VQAv2(VQADataset):
    """VQAv2 in its official files::

        <data_root>/vqav2/v2_OpenEnded_mscoco_<split>_questions.json
        <data_root>/vqav2/v2_mscoco_<split>_annotations.json
        <data_root>/<train2014, val2014 or test2015>/COCO_<...>_<12 digits>.jpg

    Args:
        split (str): 'train2014', 'val2014', 'test2015' or 'test-dev2015'. The tests have
            no annotations.
        data_root (str): The folder of COCO's images.
        question_file, ann_file (str): Below ``data_root``; ``{split}`` stands for the
            split.
        data_prefix (dict, optional): ``img_path``; default: the folder of the split's
            images.
        **kwargs: Passed to :class:`VQADataset`. ``test_mode`` is on unless the split is
            'train2014'.

    Raises:
        UserError: The files are of another split, of VQA v1, of multiple-choice questions
            or of another kind; annotations are missing, left over, or of another image;
            question ids occur twice.
    """

    def __init__(
        self,
        split: str,
        data_root: str = 'data/coco',
        question_file: str = 'vqav2/v2_OpenEnded_mscoco_{split}_questions.json',
        ann_file: str = 'vqav2/v2_mscoco_{split}_annotations.json',
        data_prefix: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in VQA_SPLITS:
            raise UserError(f'dataset.split={split!r} must be one of {", ".join(VQA_SPLITS)}.')
        self.split, self.images = split, VQA_SPLITS[split]
        self.question_file = question_file.replace('{split}', split)
        ann_file = '' if split.startswith('test') else ann_file.replace('{split}', split)
        kwargs.setdefault('test_mode', split != 'train2014')
        prefix = dict(img_path=self.images) if data_prefix is None else data_prefix
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=prefix, **kwargs)

    def _join_prefix(self) -> None:
        # BaseDataset joins one file with the root; the other one is joined alike.
        ann_file, self.ann_file = self.ann_file, self.question_file
        prefix = dict(self.data_prefix)
        super()._join_prefix()
        self.question_file, self.ann_file = self.ann_file, ann_file
        self.data_prefix = prefix
        super()._join_prefix()

    def load_questions(self) -> Iterator[dict]:
        """Yield the questions with the answers of their annotators."""
        questions = read_vqa_questions(self.question_file, self.split)
        annotations = None
        if self.ann_file:
            annotations = read_vqa_annotations(self.ann_file, self.split)
            _check_pairs(questions, annotations, self.question_file, self.ann_file)
        for question_id, q in questions.items():
            image = q['image_id']
            entry = dict(
                image=f'COCO_{self.images}_{image:012d}.jpg',
                question=q['question'],
                question_id=question_id,
                image_id=image,
                answers=[],
            )
            yield entry | (annotations[question_id] if annotations else {})


def read_vqa_questions(path: str, split: str | None = None) -> dict[int, dict]:
    """Read an official file of questions.

    Args:
        path (str): ``v2_OpenEnded_mscoco_<split>_questions.json``.
        split (str, optional): The split that it has to be of.

    Returns:
        dict[int, dict]: Question id -> ``question`` (str) and ``image_id`` (int).

    Raises:
        UserError: It is damaged, of another kind, split or version, or has a question
            id twice.
    """
    content = read_json(path, dict, 'dataset.question_file')
    entries = read_entries(content, 'questions', path, 'dataset.question_file')
    _check_header(content, path, 'dataset.question_file', split)
    found = {}
    for number, q in enumerate(entries):
        values = [q.get(k) for k in ('question_id', 'image_id', 'question')]
        if not _fit(values, (int, int, str)) or 'multiple_choices' in q:
            raise UserError(
                f"dataset.question_file: entry {number} of '{path}' is no open-ended question: "
                'expected question_id and image_id (numbers that are not negative) and question '
                '(a text). Fix: fetch the file again.'
            )
        found[values[0]] = dict(image_id=values[1], question=values[2])
    _check_unique(len(entries), [q.get('question_id') for q in entries], found, path)
    return found


def read_vqa_annotations(path: str, split: str | None = None) -> dict[int, dict]:
    """Read an official file of annotations.

    Args:
        path (str): ``v2_mscoco_<split>_annotations.json``.
        split (str, optional): The split that it has to be of.

    Returns:
        dict[int, dict]: Question id -> ``image_id``, ``answers`` (list[str], in the
        annotators' order), ``majority`` (str), ``question_type``, ``answer_type``.

    Raises:
        UserError: As :func:`read_vqa_questions`.
    """
    content = read_json(path, dict, 'dataset.ann_file')
    entries = read_entries(content, 'annotations', path, 'dataset.ann_file')
    _check_header(content, path, 'dataset.ann_file', split)
    found = {}
    for number, a in enumerate(entries):
        names = 'question_id', 'image_id', 'question_type', 'answer_type', 'multiple_choice_answer'
        values = [a.get(k) for k in names]
        answers = a.get('answers')
        given = [g.get('answer') for g in _dicts(answers)]
        if (
            not _fit(values, (int, int, str, str, str))
            or not given
            or len(given) != len(answers)
            or not all(isinstance(g, str) for g in given)
        ):
            raise UserError(
                f"dataset.ann_file: entry {number} of '{path}' is no annotation: expected "
                f'{", ".join(names)} and answers (a list of objects with an answer). Fix: fetch '
                'the file again.'
            )
        found[values[0]] = dict(
            image_id=values[1],
            question_type=values[2],
            answer_type=values[3],
            majority=values[4],
            answers=given,
        )
    _check_unique(len(entries), [a.get('question_id') for a in entries], found, path)
    return found


def _dicts(value: object) -> list[dict]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _fit(values: Sequence[object], kinds: Sequence[type]) -> bool:
    pairs = zip(values, kinds, strict=True)
    return all(type(v) is kind and (kind is not int or 0 <= v < 2**63) for v, kind in pairs)


def _check_header(content: dict, path: str, field: str, split: str | None) -> None:
    """Refuse files of another split, version or kind of question, if they say so."""
    info = content.get('info')
    version = info.get('version') if isinstance(info, dict) else None
    wrong = [
        (name, found, wanted)
        for name, found, wanted in (
            ('data_subtype', content.get('data_subtype'), split),
            ('task_type', content.get('task_type'), 'Open-Ended'),
            ('info.version', version, '2.0'),
        )
        if found is not None and wanted is not None and found != wanted
    ]
    if wrong:
        name, found, wanted = wrong[0]
        raise UserError(
            f"{field}: '{path}' has {name}={found!r}, expected {wanted!r}. Fix: name the VQA v2 "
            'file of open-ended questions of the split in dataset.split.'
        )


def _check_unique(total: int, ids: Sequence[object], found: dict, path: str) -> None:
    if len(found) < total:
        twice = [q for q, n in Counter(ids).items() if n > 1]
        raise UserError(
            f"'{path}' has {len(twice)} question id(s) more than once: {listing(twice)}. Fix: "
            'fetch the file again.'
        )


def _check_pairs(questions: dict, annotations: dict, question_file: str, ann_file: str) -> None:
    """Refuse questions and annotations that do not belong together."""
    missing = [q for q in questions if q not in annotations]
    extra = [q for q in annotations if q not in questions]
    both = [q for q in questions if q in annotations]
    other = [q for q in both if annotations[q]['image_id'] != questions[q]['image_id']]
    problems = [
        f'{len(ids)} {what} ({listing(ids)})'
        for ids, what in (
            (missing, 'questions have no annotation'),
            (extra, 'annotations have no question'),
            (other, 'annotations are of another image'),
        )
        if ids
    ]
    if problems:
        raise UserError(
            f"'{question_file}' and '{ann_file}' do not belong together: "
            f'{"; ".join(problems)}. Fix: fetch both files of the same split again.'
        )


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
        for where, row in read_rows(self.ann_file, 'dataset.ann_file'):
            place = f"dataset.ann_file: {where} of '{self.ann_file}'"
            question = row.get('question')
            if 'image' not in row or not isinstance(question, str):
                raise UserError(
                    f'{place} has {listing(list(row)) or "nothing"}; expected image, question '
                    '(a text) and answer or answers. Fix: name the columns so.'
                )
            answers = texts_of(row, 'answer', 'answers', place)
            optional = ('question_id', 'question_type', 'answer_type', 'image_id')
            known = {k: row[k] for k in optional if row.get(k) not in (None, '')}
            if not all(isinstance(v, (str, int)) for v in known.values()):
                raise UserError(f'{place}: {", ".join(known)} must be texts or numbers.')
            # CSV has no numbers, and an evaluation server may want its ids as such.
            if re.fullmatch(r'(0|[1-9][0-9]{0,17})', str(known.get('question_id', ''))):
                known['question_id'] = int(known['question_id'])
            yield dict(image=row['image'], question=question, answers=answers or [], **known)
