"""Tiny scenes and questions in the layouts of ScanNet, ScanQA and SQA3D, of random points."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

#: From the scan to the aligned frame: a turn of 30 degrees around z and a shift.
ALIGNMENT = np.eye(4)
ALIGNMENT[:3, :3] = Rotation.from_euler('z', 30, degrees=True).as_matrix()
ALIGNMENT[:3, 3] = (1.0, -2.0, 0.5)
#: NYU40 ids of the objects: a chair, a table, something else; then a wall.
IDS = (5, 7, 39, 1)
QUESTIONS = (
    ('I am facing the chair.', 'What is behind me?', 'table'),
    ('I sit on the chair.', 'Is the table left of me?', 'yes'),
    ('I am facing the wall.', 'How many chairs are there?', 'two'),
)
ANSWERS = ['table', 'table', 'yes', 'no', 'two', 'chair']


def write_scene(
    root: Path, name: str, count: int = 60, seed: int = 0
) -> dict[str, np.ndarray]:
    """Write the files of a scene; return what is in them, by the ends of their names."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 4, (count, 3))
    colors = rng.integers(0, 256, (count, 3))
    normals = rng.normal(size=(count, 3))
    raw = np.hstack((places, colors, normals)).astype(np.float32)
    aligned = raw.copy()
    aligned[:, :3] = raw[:, :3] @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
    instances = rng.integers(0, len(IDS), count)
    boxes = []
    for i, kind in enumerate(IDS):
        points = aligned[instances == i, :3]
        low = points.min(0)
        high = points.max(0)
        boxes.append([*(high + low) / 2, *(high - low), kind, i])
    arrays = dict(
        vert=raw,
        aligned_vert=aligned,
        ins_label=instances.astype(np.uint32) + 1,
        sem_label=np.array(IDS, dtype=np.uint32)[instances],
        aligned_bbox=np.array(boxes),
    )
    files = {f'scannet_data/{name}_{end}': array for end, array in arrays.items()}
    files[f'objects/{name}'] = rng.normal(size=(5, 9)).astype(np.float32)
    for file, array in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / f'{file}.npy', array)
    scan = root / 'scans' / name / f'{name}.txt'
    scan.parent.mkdir(parents=True, exist_ok=True)
    numbers = ' '.join(f'{v:.6f}' for v in ALIGNMENT.ravel())
    scan.write_text(
        f'axisAlignment = {numbers} \ncolorHeight = 968\nsceneType = Office\n'
    )
    return arrays


def entries(scenes: Sequence[str]) -> list[dict]:
    """Return the list of ``SQA_<split>.json``: each question about each scene."""
    listed = []
    for i, (situation, question, answer) in enumerate(QUESTIONS):
        turn = Rotation.from_euler('z', 40 * i + 10, degrees=True)
        for scene in scenes:
            entry = dict(
                scene_id=scene,
                question_id=220602000000 + len(listed),
                situation=situation,
                question=question,
                answers=[answer],
                position=[0.5, -0.25 * i, 0, *turn.as_quat().tolist()],
            )
            listed.append(entry)
    return listed


def official(listed: Sequence[dict]) -> tuple[dict, dict]:
    """Return the contents of the two official files with the questions of the one."""
    questions = []
    annotations = []
    for entry in listed:
        ids = dict(scene_id=entry['scene_id'], question_id=entry['question_id'])
        question = dict(
            ids,
            situation=entry['situation'],
            question=entry['question'],
            alternative_situation=['I stand here.'] * 2,
        )
        questions.append(question)
        x, y, z, qx, qy, qz, qw = entry['position']
        answers = [
            dict(answer=answer, answer_confidence='yes', answer_id=1)
            for answer in entry['answers']
        ]
        annotation = dict(
            ids,
            answers=answers,
            rotation=dict(_w=qw, _x=qx, _y=qy, _z=qz),  # in the train file's order
            position=dict(x=x, y=y, z=z),
        )
        annotations.append(annotation)
    return dict(task_type='SQA', questions=questions), dict(annotations=annotations)


def write_sqa3d(root: Path) -> Path:
    """Write splits of two scenes each (train) and one (val, test), in both layouts."""
    qa = root / 'qa'
    qa.mkdir(parents=True)
    for split, chosen in dict(train=(0, 1), val=(2,), test=(3,)).items():
        scenes = [f'scene{i:04d}_00' for i in chosen]
        for i, scene in zip(chosen, scenes, strict=True):
            write_scene(root, scene, seed=i)
        listed = entries(scenes)
        questions, annotations = official(listed)
        contents = {
            f'SQA_{split}': listed,
            f'v1_balanced_questions_{split}_scannetv2': questions,
            f'v1_balanced_sqa_annotations_{split}_scannetv2': annotations,
        }
        for name, content in contents.items():
            (qa / f'{name}.json').write_text(json.dumps(content))
    (qa / 'answer_counter.json').write_text(json.dumps(ANSWERS))
    return root
