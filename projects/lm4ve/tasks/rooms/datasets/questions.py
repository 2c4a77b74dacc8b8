"""Read SQA3D's questions: its two official files, or the one that its ScanQA code reads.

Formats: github.com/SilongYong/SQA3D, assets/dataset.md and utils/sqa_data_2_ScanQA.py.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from lm4ve.errors import UserError
from lm4ve.tasks.base.language.json_files import check_pairs, check_unique, naming_file, read_json

#: Keys of a rotation in the official file, in the order of ``gt_pose``.
QUATERNION = ('_x', '_y', '_z', '_w')
#: A shorter quaternion has no direction.
_SHORTEST = 1e-2


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
        a quaternion x, y, z, w of length 1).

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
    return [q[k] for q in _read(path) for k in ('situation', 'question')]


def read_answers(path: str) -> list[str]:
    """Return the answers of a file: the one list, or official annotations."""
    return [answer for q in _read(path, 'annotations') for answer in q['answers']]


def _read(path: str, key: str = 'questions') -> list[dict]:
    """Return the entries of a list, or of an official file's list under ``key``."""
    content = read_json(path, (list, dict), 'SQA3D')
    with naming_file(path, 'SQA3D'):
        if isinstance(content, list):
            found = [_of_list(e) for e in content]
            _check_order([e['rotation'] for e in found], path)
        else:
            found = [_OFFICIAL[key](e) for e in content[key]]
    ids = [q['question_id'] for q in found]
    check_unique(len(found), ids, dict.fromkeys(ids), path)
    return found


def _of_questions(q: dict) -> dict:
    # {"question_id": 220602000000, "scene_id": "scene0380_00", "situation": "I am facing ...",
    #  "question": "What is ...?"}
    return dict(
        question_id=q['question_id'],
        scene_id=_scene(q['scene_id']),
        situation=q['situation'].strip(),
        question=q['question'].strip(),
    )


def _of_annotations(a: dict) -> dict:
    # {"question_id": 220602000000, "scene_id": "scene0380_00", "answers": [{"answer": "brown"}],
    #  "position": {"x": .., "y": .., "z": ..},
    #  "rotation": {"_x": .., "_y": .., "_z": .., "_w": ..}}
    return dict(
        question_id=a['question_id'],
        scene_id=_scene(a['scene_id']),
        answers=_answers([answer['answer'] for answer in a['answers']]),
        **_pose([a['position'][k] for k in 'xyz'], [a['rotation'][k] for k in QUATERNION]),
    )


def _of_list(e: dict) -> dict:
    # {"question_id": "0", "scene_id": "scene0380_00", "situation": "I am facing ...",
    #  "question": "What is ...?", "answers": ["brown"], "position": [x, y, z, x, y, z, w]}
    pose = _pose(e['position'][:3], e['position'][3:])
    return {**_of_questions(e), 'answers': _answers(e['answers']), **pose}


_OFFICIAL = dict(questions=_of_questions, annotations=_of_annotations)


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
            f"'{path}' has quaternions w, x, y, z, expected x, y, z, w. Fix: set "
            'dataset.question_file and dataset.ann_file to the two official files.'
        )


def _scene(name: str) -> str:
    # The name becomes a part of paths.
    if not re.fullmatch('[A-Za-z0-9_-]+', name):
        raise ValueError(f'scene_id={name!r}')
    return name


def _answers(texts: list[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f'answers={texts!r} is not a list')
    return [text for text in texts if text.strip()]


def _pose(position: Sequence[float], rotation: Sequence[float]) -> dict[str, list[float]]:
    """Return a position and a rotation, the latter of length 1."""
    place, turn = (np.array(v, dtype=np.float64) for v in (position, rotation))
    length = math.hypot(*turn)
    fits = place.shape == (3,) and turn.shape == (4,) and np.isfinite([*place, *turn]).all()
    if not fits or length < _SHORTEST:
        raise ValueError(f'position={position}, rotation={rotation}')
    return dict(position=place.tolist(), rotation=[float(v) / length for v in turn])
