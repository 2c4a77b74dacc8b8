"""VQA's official JSON files, questions and annotations, checked entry by entry.

Format: visualqa.org/download.html ("Input Questions Format", "Annotation Format").
"""

from collections.abc import Sequence

from lm4ve.errors import UserError
from lm4ve.tasks.base.language.json_files import check_unique, read_entries, read_json


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
    check_unique(len(entries), [q.get('question_id') for q in entries], found, path)
    return found


def read_vqa_annotations(
    path: str, split: str | None = None, field: str = 'dataset.ann_file'
) -> dict[int, dict]:
    """Read an official file of annotations.

    Args:
        path (str): ``v2_mscoco_<split>_annotations.json``.
        split (str, optional): The split that it has to be of.
        field (str): What messages call the file.

    Returns:
        dict[int, dict]: Question id -> ``image_id``, ``answers`` (list[str], in the
        annotators' order), ``majority`` (str), ``question_type``, ``answer_type``.

    Raises:
        UserError: As :func:`read_vqa_questions`.
    """
    content = read_json(path, dict, field)
    entries = read_entries(content, 'annotations', path, field)
    _check_header(content, path, field, split)
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
                f"{field}: entry {number} of '{path}' is no annotation: expected "
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
    check_unique(len(entries), [a.get('question_id') for a in entries], found, path)
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
