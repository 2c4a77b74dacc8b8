"""Read SQA3D's questions: its two official files, or the one that its ScanQA code reads.

Formats: github.com/SilongYong/SQA3D, assets/dataset.md and utils/sqa_data_2_ScanQA.py.
"""

import re
from collections.abc import Callable, Sequence

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
        return _read(ann_file, 'questions', _parse_question)
    questions = {}
    for question in _read(question_file, 'questions', _parse_question):
        questions[question['question_id']] = question
    annotations = {}
    for annotation in _read(ann_file, 'annotations', _parse_annotation):
        annotations[annotation['question_id']] = annotation
    check_pairs(questions, annotations, question_file, ann_file, ('scene_id', 'scene'))
    return [
        question | annotations[question_id]
        for question_id, question in questions.items()
    ]


def read_texts(path: str) -> list[str]:
    """Return the situations and questions of a file: the one list, or official questions."""
    texts = []
    for question in _read(path, 'questions', _parse_question):
        texts += question['text']
    return texts


def read_answers(path: str) -> list[str]:
    """Return the answers of a file: the one list, or official annotations."""
    answers = []
    for annotation in _read(path, 'annotations', _parse_annotation):
        answers += annotation['gt_answers']
    return answers


def _read(path: str, key: str, parse: Callable[[dict], dict]) -> list[dict]:
    """Return the entries of the one list, or of an official file.

    Args:
        path (str): The file.
        key (str): Where an official file has its entries.
        parse (callable): Parses one of them.
    """
    content = read_json(path, (list, dict), 'SQA3D')
    with naming_file(path, 'SQA3D'):
        if isinstance(content, list):
            entries = [_parse_of_list(row) for row in content]
            _check_order([entry['rotation'] for entry in entries], path)
        else:
            entries = [parse(row) for row in content[key]]
    check_unique([entry['question_id'] for entry in entries], path)
    return entries


def _parse_question(row: dict) -> dict:
    """Parse an entry of the official questions, or the question in one of the list."""
    # {"question_id": 220602000000, "scene_id": "scene0380_00",
    #  "situation": "I am facing ...", "question": "What is ...?"}
    return _ids(row) | dict(text=[row['situation'], row['question']])


def _parse_annotation(row: dict) -> dict:
    """Parse an entry of the official annotations."""
    # {"question_id": 220602000000, "scene_id": "scene0380_00",
    #  "answers": [{"answer": "brown"}],
    #  "position": {"x": .., "y": .., "z": ..},
    #  "rotation": {"_x": .., "_y": .., "_z": .., "_w": ..}}
    position = [row['position'][key] for key in ('x', 'y', 'z')]
    rotation = [row['rotation'][key] for key in ('_x', '_y', '_z', '_w')]
    answers = [answer['answer'] for answer in row['answers']]
    return _ids(row) | _answers_and_pose(answers, position + rotation)


def _parse_of_list(row: dict) -> dict:
    """Parse an entry of the one list, which is a question with its annotation."""
    # {"question_id": "0", "scene_id": "scene0380_00",
    #  "situation": "I am facing ...", "question": "What is ...?",
    #  "answers": ["brown"], "position": [x, y, z, x, y, z, w]}
    if not isinstance(row['answers'], list):
        raise TypeError(f'answers={row["answers"]!r} is not a list')
    return _parse_question(row) | _answers_and_pose(row['answers'], row['position'])


def _ids(row: dict) -> dict:
    # The name becomes a part of paths.
    if not re.fullmatch('[A-Za-z0-9_-]+', row['scene_id']):
        raise ValueError(f'scene_id={row["scene_id"]!r}')
    return dict(question_id=row['question_id'], scene_id=row['scene_id'])


def _answers_and_pose(answers: list[str], pose: Sequence[float]) -> dict:
    """Return answers that are not empty, the position, and the rotation of length 1."""
    numbers = np.array(pose, dtype=np.float64)
    length = np.linalg.norm(numbers[3:])
    is_pose = numbers.shape == (7,) and np.isfinite(numbers).all()
    if not is_pose or not 0.01 < length < np.inf:
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
    numbers = np.reshape(rotations, (-1, 4))
    is_used = (np.abs(numbers) > 1e-6).any(axis=0)
    if is_used[0] and not is_used[1] and not is_used[2]:
        raise UserError(
            f"'{path}' has quaternions w, x, y, z, expected x, y, z, w. Fix: set "
            'dataset.question_file and dataset.ann_file to the two official files.'
        )
