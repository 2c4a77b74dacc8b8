"""Read SQA3D's questions: its two official files, or the one that its ScanQA code reads.

Formats: github.com/SilongYong/SQA3D, assets/dataset.md and utils/sqa_data_2_ScanQA.py.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm4ve.errors import UserError
from lm4ve.tasks.base.language.json_files import check_pairs, check_unique

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
        found = _read(ann_file, _of_list)
        _check_order([e['rotation'] for e in found], ann_file)
        return found
    questions = {q['question_id']: q for q in _read(question_file, _of_questions)}
    annotations = {a['question_id']: a for a in _read(ann_file, _of_annotations)}
    check_pairs(questions, annotations, question_file, ann_file, ('scene_id', 'scene'))
    return [{**q, **annotations[i]} for i, q in questions.items()]


def read_texts(path: str) -> list[str]:
    """Return the situations and questions of a file: the one list, or official questions."""
    found = _read(path, lambda content: (_of_list if _is_list(content) else _of_questions)(content))
    return [q[k] for q in found for k in ('situation', 'question')]


def read_answers(path: str) -> list[str]:
    """Return the answers of a file: the one list, or official annotations."""
    found = _read(
        path, lambda content: (_of_list if _is_list(content) else _of_annotations)(content)
    )
    return [answer for q in found for answer in q['answers']]


def _is_list(content: Any) -> bool:
    return isinstance(content, list)


def _read(path: str, entries_of: Any) -> list[dict]:
    """Return a file's entries, of which no two have one question id."""
    try:
        found = entries_of(json.loads(Path(path).read_text(encoding='utf-8-sig')))
    except OSError as e:
        raise UserError(f"'{path}' cannot be read: {e.strerror}.") from e
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        raise UserError(f"'{path}' is not a file of SQA3D: {e!r}.") from e
    ids = [q['question_id'] for q in found]
    check_unique(len(found), ids, dict.fromkeys(ids), path)
    return found


def _of_questions(content: dict) -> list[dict]:
    # {"questions": [{"question_id": 220602000000, "scene_id": "scene0380_00",
    #                 "situation": "I am facing ...", "question": "What is ...?"}]}
    return [
        dict(
            question_id=q['question_id'],
            scene_id=_scene(q['scene_id']),
            situation=q['situation'].strip(),
            question=q['question'].strip(),
        )
        for q in content['questions']
    ]


def _of_annotations(content: dict) -> list[dict]:
    # {"annotations": [{"question_id": 220602000000, "scene_id": "scene0380_00",
    #                   "answers": [{"answer": "brown"}], "position": {"x": .., "y": .., "z": ..},
    #                   "rotation": {"_x": .., "_y": .., "_z": .., "_w": ..}}]}
    return [
        dict(
            question_id=a['question_id'],
            scene_id=_scene(a['scene_id']),
            answers=_answers(answer['answer'] for answer in a['answers']),
            position=_numbers(a['position'][k] for k in 'xyz'),
            rotation=_unit(_numbers(a['rotation'][k] for k in QUATERNION)),
        )
        for a in content['annotations']
    ]


def _of_list(content: list) -> list[dict]:
    # [{"question_id": "0", "scene_id": "scene0380_00", "situation": "I am facing ...",
    #   "question": "What is ...?", "answers": ["brown"], "position": [x, y, z, x, y, z, w]}]
    found = []
    for entry in content:
        pose = _numbers(entry['position'])
        if len(pose) != 7:
            raise ValueError(f'position has {len(pose)} numbers, expected 7')
        found.append(
            dict(
                question_id=entry['question_id'],
                scene_id=_scene(entry['scene_id']),
                situation=entry['situation'].strip(),
                question=entry['question'].strip(),
                answers=_answers(entry['answers']),
                position=pose[:3],
                rotation=_unit(pose[3:]),
            )
        )
    return found


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


def _answers(texts: Any) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f'answers={texts!r} is not a list')
    return [text for text in texts if text.strip()]


def _numbers(values: Any) -> list[float]:
    found = [float(v) for v in values]
    if not all(map(math.isfinite, found)):
        raise ValueError(f'numbers that are not finite: {found}')
    return found


def _unit(quaternion: list[float]) -> list[float]:
    length = math.hypot(*quaternion)
    if length < _SHORTEST:
        raise ValueError(f'the rotation {quaternion} has no direction')
    return [v / length for v in quaternion]
