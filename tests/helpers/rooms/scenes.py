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
    places, colors = rng.uniform(0, 4, (count, 3)), rng.integers(0, 256, (count, 3))
    raw = np.hstack((places, colors, rng.normal(size=(count, 3)))).astype(np.float32)
    aligned = raw.copy()
    aligned[:, :3] = raw[:, :3] @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
    instances = rng.integers(0, len(IDS), count)
    clouds = [aligned[instances == i, :3] for i in range(len(IDS))]
    ends = [(x.min(0), x.max(0)) for x in clouds]
    boxes = [
        [*(high + low) / 2, *(high - low), IDS[i], i]
        for i, (low, high) in enumerate(ends)
    ]
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
    found = []
    for i, (situation, question, answer) in enumerate(QUESTIONS):
        turn = Rotation.from_euler('z', 40 * i + 10, degrees=True).as_quat().tolist()
        texts = dict(situation=situation, question=question, answers=[answer])
        for scene in scenes:
            ids = dict(scene_id=scene, question_id=220602000000 + len(found))
            found.append(dict(ids, **texts, position=[0.5, -0.25 * i, 0, *turn]))
    return found


def official(listed: Sequence[dict]) -> tuple[dict, dict]:
    """Return the contents of the two official files with the questions of the one."""
    questions, annotations = [], []
    for e in listed:
        ids = dict(scene_id=e['scene_id'], question_id=e['question_id'])
        texts = dict(situation=e['situation'], question=e['question'])
        questions.append(
            dict(ids, **texts, alternative_situation=['I stand here.'] * 2)
        )
        x, y, z, qx, qy, qz, qw = e['position']
        answers = [
            dict(answer=a, answer_confidence='yes', answer_id=1) for a in e['answers']
        ]
        # As in the train file: w comes first.
        rotation, position = dict(_w=qw, _x=qx, _y=qy, _z=qz), dict(x=x, y=y, z=z)
        annotations.append(
            dict(ids, answers=answers, rotation=rotation, position=position)
        )
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
        (qa / f'SQA_{split}.json').write_text(json.dumps(listed))
        for name, content in zip(
            ('questions', 'sqa_annotations'), official(listed), strict=True
        ):
            (qa / f'v1_balanced_{name}_{split}_scannetv2.json').write_text(
                json.dumps(content)
            )
    (qa / 'answer_counter.json').write_text(json.dumps(ANSWERS))
    return root
