"""Read SQA3D's questions: its two official files, or the one that its ScanQA code reads.

Formats: github.com/SilongYong/SQA3D, assets/dataset.md and utils/sqa_data_2_ScanQA.py.
"""

import math
import re
from collections.abc import Sequence

from lm4ve.errors import UserError, brief
from lm4ve.tasks.base.language.json_files import check_pairs, check_unique, read_entries, read_json

#: Keys of a rotation in the official file, in the order of ``gt_pose``.
QUATERNION = ('_x', '_y', '_z', '_w')
#: Shorter than this, a quaternion says nothing of a direction.
_LENGTH = 1e-2
_QUESTION, _ANNOTATION = 'dataset.question_file', 'dataset.ann_file'
_AGAIN = 'Fix: fetch the file again.'


def read_questions(ann_file: str, question_file: str | None = None) -> list[dict]:
    """Read questions about rooms.

    Args:
        ann_file (str): The one file, a list; or, with ``question_file``, the official
            annotations.
        question_file (str, optional): The official questions.

    Returns:
        list[dict]: For each question ``question_id`` (int or str), ``scene_id``,
        ``situation`` and ``question`` (str), ``answers`` (list[str]), ``position``
        (3 floats, meters, relative to the middle of the scan) and ``rotation`` (4 floats:
        a quaternion x, y, z, w, brought to length 1).

    Raises:
        UserError: A file cannot be read, is damaged or of another kind; a question id
            occurs twice; files do not belong together.
    """
    if question_file is None:
        return _read_list(ann_file)
    questions = _read_official_questions(question_file)
    annotations = _read_official_annotations(ann_file)
    check_pairs(questions, annotations, question_file, ann_file, ('scene_id', 'scene'))
    return [dict(q, **annotations[i], question_id=i) for i, q in questions.items()]


def read_texts(path: str) -> list[str]:
    """Return the situations and questions of a file: the one list, or official questions.

    Raises:
        UserError: As :func:`read_questions`.
    """
    official = 'questions' in read_json(path, (list, dict), _QUESTION)
    found = _read_official_questions(path).values() if official else _read_list(path)
    return [q[k] for q in found for k in ('situation', 'question')]


def read_answers(path: str) -> list[str]:
    """Return the answers of a file: the one list, or official annotations.

    Raises:
        UserError: As :func:`read_questions`.
    """
    official = 'annotations' in read_json(path, (list, dict), _ANNOTATION)
    found = _read_official_annotations(path).values() if official else _read_list(path)
    return [answer for q in found for answer in q['answers']]


def _read_official_questions(path: str) -> dict[int, dict]:
    content = read_json(path, dict, _QUESTION)
    entries = read_entries(content, 'questions', path, _QUESTION)
    found = {}
    for number, q in enumerate(entries):
        where = f"{_QUESTION}: entry {number} of '{path}'"
        question_id = _id_of(q, where)
        texts = {k: _text_of(q, k, where) for k in ('situation', 'question')}
        found[question_id] = dict(texts, scene_id=_scene_of(q, where))
    check_unique(len(entries), [q['question_id'] for q in entries], found, path)
    return found


def _read_official_annotations(path: str) -> dict[int, dict]:
    content = read_json(path, dict, _ANNOTATION)
    entries = read_entries(content, 'annotations', path, _ANNOTATION)
    found = {}
    for number, a in enumerate(entries):
        where = f"{_ANNOTATION}: entry {number} of '{path}'"
        question_id = _id_of(a, where)
        given = a.get('answers')
        given = [e.get('answer') if isinstance(e, dict) else None for e in _list(given)]
        found[question_id] = dict(
            scene_id=_scene_of(a, where),
            answers=_answers(given, where),
            position=_numbers_of(a.get('position'), ('x', 'y', 'z'), 'position', where),
            rotation=_quaternion(
                _numbers_of(a.get('rotation'), QUATERNION, 'rotation', where), where
            ),
        )
    check_unique(len(entries), [a['question_id'] for a in entries], found, path)
    return found


def _read_list(path: str) -> list[dict]:
    entries = read_json(path, (list, dict), _ANNOTATION)
    if isinstance(entries, dict):
        official = 'annotations' if 'annotations' in entries else 'questions'
        what = f'the official {official}' if official in entries else 'something else'
        raise UserError(
            f"{_ANNOTATION}: '{path}' holds {what}, expected the list of SQA_<split>.json. Fix: "
            'set dataset.question_file and dataset.ann_file to the two official files '
            '(v1_balanced_questions_<split>_scannetv2.json and '
            'v1_balanced_sqa_annotations_<split>_scannetv2.json).'
        )
    found = {}
    for number, entry in enumerate(entries):
        where = f"{_ANNOTATION}: entry {number} of '{path}'"
        if not isinstance(entry, dict):
            raise UserError(f'{where} is no object with a question. {_AGAIN}')
        pose = _list(entry.get('position'))
        if len(pose) != 7 or not all(map(_is_number, pose)):
            raise UserError(
                f'{where}: position must be 7 numbers, x, y, z and a quaternion x, y, z, w; found '
                f'{brief(entry.get("position"))!r}. {_AGAIN}'
            )
        question_id = _id_of(entry, where)
        found[question_id] = dict(
            question_id=question_id,
            scene_id=_scene_of(entry, where),
            situation=_text_of(entry, 'situation', where),
            question=_text_of(entry, 'question', where),
            answers=_answers(_list(entry.get('answers')), where),
            position=[float(v) for v in pose[:3]],
            rotation=_quaternion([float(v) for v in pose[3:]], where),
        )
    check_unique(len(entries), [e['question_id'] for e in entries], found, path)
    _check_order([e['rotation'] for e in found.values()], path)
    return list(found.values())


def _check_order(rotations: Sequence[Sequence[float]], path: str) -> None:
    """Refuse quaternions that begin with w.

    The list has the order that the official file's keys happened to have. People in SQA3D
    turn around the vertical axis alone, so that the second and third number are x and y, or
    zero, only if the first is w.
    """
    if any(abs(x) > 1e-6 for x, *_ in rotations) and not any(
        abs(y) > 1e-6 or abs(z) > 1e-6 for _, y, z, _ in rotations
    ):
        raise UserError(
            f"{_ANNOTATION}: the quaternions of '{path}' begin with w, expected x, y, z, w: the "
            'file was converted from one whose keys are in another order. Fix: set '
            'dataset.question_file and dataset.ann_file to the two official files, which name '
            'each number.'
        )


def _list(value: object) -> list:
    return value if isinstance(value, list) else []


def _id_of(entry: dict, where: str) -> int:
    found = entry.get('question_id')
    if type(found) not in (int, str) or found == '':
        raise UserError(f'{where} has question_id={brief(found)!r}, expected a number. {_AGAIN}')
    return found


def _scene_of(entry: dict, where: str) -> str:
    found = entry.get('scene_id')
    if not isinstance(found, str) or not re.fullmatch('[A-Za-z0-9_-]+', found):
        raise UserError(
            f'{where} has scene_id={brief(found)!r}, expected the name of a scene, for example '
            f'scene0000_00. {_AGAIN}'
        )
    return found


def _text_of(entry: dict, key: str, where: str) -> str:
    if not isinstance(entry.get(key), str):
        raise UserError(f'{where} has no text as {key}. {_AGAIN}')
    return entry[key].strip()


def _answers(given: list, where: str) -> list[str]:
    if not all(isinstance(a, str) for a in given):
        raise UserError(f'{where}: answers must be texts. {_AGAIN}')
    return [a for a in given if a.strip()]


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _numbers_of(value: object, keys: Sequence[str], name: str, where: str) -> list[float]:
    """Read numbers by their keys: files differ in the order."""
    found = value if isinstance(value, dict) else {}
    if set(found) != set(keys) or not all(map(_is_number, found.values())):
        raise UserError(
            f'{where}: {name} must have the numbers {", ".join(keys)}; found {brief(value)!r}. '
            f'{_AGAIN}'
        )
    return [float(found[k]) for k in keys]


def _quaternion(numbers: list[float], where: str) -> list[float]:
    length = math.hypot(*numbers)
    if length < _LENGTH:
        raise UserError(
            f'{where}: the rotation {numbers} has the length {length:.3g}, so it is no direction. '
            f'{_AGAIN}'
        )
    return [v / length for v in numbers]
