"""Read SQA3D's questions: its two official files, or the one that its ScanQA code reads.

Formats: github.com/SilongYong/SQA3D, assets/dataset.md and utils/sqa_data_2_ScanQA.py.
"""

import re
from collections.abc import Sequence

import numpy as np

from lm4ve.errors import UserError
from lm4ve.text.annotation_files import (
    check_pairs,
    check_unique,
    naming_file,
    read_json,
)


def read_questions(ann_file: str, question_file: str | None = None) -> list[dict]:
    """Read questions about rooms.

    Args:
        ann_file (str): The one file, a list; or, with ``question_file``, the official
            annotations.
        question_file (str, optional): The official questions.

    Returns:
        list[dict]: For each question ``question_id`` (int or str), ``scene_id``,
        ``text`` (the situation and the question), ``gt_answers`` (list[str]),
        ``position`` (3 floats, meters, relative to the middle of the scan) and
        ``rotation`` (4 floats: a quaternion x, y, z, w of length 1).

    Raises:
        UserError: A file is damaged or of another kind; a question id occurs twice; the
            files do not belong together.
    """
    if question_file is None:
        return _read(ann_file)
    questions = {q['question_id']: q for q in _read(question_file)}
    annotations = {a['question_id']: a for a in _read(ann_file, 'annotations')}
    check_pairs(questions, annotations, question_file, ann_file, ('scene_id', 'scene'))
    return [{**q, **annotations[i]} for i, q in questions.items()]


def read_texts(path: str) -> list[str]:
    """Return the situations and questions of a file: the one list, or official questions."""
    return [text for q in _read(path) for text in q['text']]


def read_answers(path: str) -> list[str]:
    """Return the answers of a file: the one list, or official annotations."""
    return [answer for q in _read(path, 'annotations') for answer in q['gt_answers']]


def _read(path: str, key: str = 'questions') -> list[dict]:
    """Return the entries of a list, or of an official file's list under ``key``."""
    content = read_json(path, (list, dict), 'SQA3D')
    with naming_file(path, 'SQA3D'):
        if isinstance(content, list):
            found = [_of_list(e) for e in content]
            _check_order([e['rotation'] for e in found], path)
        else:
            read = _of_questions if key == 'questions' else _of_annotations
            found = [read(e) for e in content[key]]
    check_unique([q['question_id'] for q in found], path)
    return found


def _of_questions(q: dict) -> dict:
    # {"question_id": 220602000000, "scene_id": "scene0380_00", "situation": "I am
    # facing ...",
    #  "question": "What is ...?"}
    return _ids(q) | dict(text=[q['situation'], q['question']])


def _of_annotations(a: dict) -> dict:
    # {"question_id": 220602000000, "scene_id": "scene0380_00", "answers": [{"answer":
    # "brown"}],
    #  "position": {"x": .., "y": .., "z": ..},
    #  "rotation": {"_x": .., "_y": .., "_z": .., "_w": ..}}
    pose = [a['position'][k] for k in 'xyz'] + [
        a['rotation'][k] for k in ('_x', '_y', '_z', '_w')
    ]
    return _ids(a) | _annotations([answer['answer'] for answer in a['answers']], pose)


def _of_list(e: dict) -> dict:
    # {"question_id": "0", "scene_id": "scene0380_00", "situation": "I am facing ...",
    #  "question": "What is ...?", "answers": ["brown"], "position": [x, y, z, x, y, z,
    # w]}
    if not isinstance(e['answers'], list):
        raise TypeError(f'answers={e["answers"]!r} is not a list')
    return _of_questions(e) | _annotations(e['answers'], e['position'])


def _ids(entry: dict) -> dict:
    # The name becomes a part of paths.
    if not re.fullmatch('[A-Za-z0-9_-]+', entry['scene_id']):
        raise ValueError(f'scene_id={entry["scene_id"]!r}')
    return dict(question_id=entry['question_id'], scene_id=entry['scene_id'])


def _annotations(answers: list[str], pose: Sequence[float]) -> dict:
    """Return answers that are not empty, the position, and the rotation of length 1."""
    numbers = np.array(pose, dtype=np.float64)
    length = np.linalg.norm(numbers[3:])
    if (
        numbers.shape != (7,)
        or not 0.01 < length < np.inf
        or not np.isfinite(numbers).all()
    ):
        raise ValueError(f'position and rotation={pose}')
    return dict(
        gt_answers=[text for text in answers if text.strip()],
        position=numbers[:3].tolist(),
        rotation=(numbers[3:] / length).tolist(),
    )


def _check_order(rotations: Sequence[Sequence[float]], path: str) -> None:
    """Refuse quaternions that begin with w.

    The list has the order that the official file's keys happened to have. People in
    SQA3D turn around the vertical axis alone, so that the second and third number are x
    and y, or zero, only if the first is w.
    """
    first, second, third, _ = (np.abs(np.reshape(rotations, (-1, 4))) > 1e-6).any(
        axis=0
    )
    if first and not second and not third:
        raise UserError(
            f"'{path}' has quaternions w, x, y, z, expected x, y, z, w. Fix: set "
            'dataset.question_file and dataset.ann_file to the two official files.'
        )
