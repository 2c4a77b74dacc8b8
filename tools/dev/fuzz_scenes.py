"""SQA3D's questions, prepared scenes and what a model reads beside them, for ``fuzz.py``."""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from fuzz_readers import LINES_WITHOUT_COUNT, READERS, Made

LINES_WITHOUT_COUNT['word-vectors-txt'] = 'a table is one word a line, without a count'
LINES_WITHOUT_COUNT['scene-alignment'] = 'a text of one value a line, without a count'
_SCENE = 'scene0000_00'
_POINTS = np.random.default_rng(0).integers(0, 200, (12, 6)).astype(np.float32)
_BOXES = np.array([[1, 1, 1, 2, 2, 2, 5, 0], [3, 1, 1, 1, 1, 1, 7, 1]], dtype=np.float64)
_TURN = (('_x', 0), ('_y', 0), ('_z', 0.6), ('_w', 0.8))
_IDS = [dict(scene_id=_SCENE, question_id=220602000000 + i) for i in range(3)]
_TEXTS = dict(situation='I am facing the door.', question='What is behind me?')
_LIST = [
    dict(ids, **_TEXTS, answers=['table'], position=[0.5, 0.25, 0, 0, 0, 0.6, 0.8]) for ids in _IDS
]
_QUESTIONS = dict(questions=[dict(ids, **_TEXTS, alternative_situation=['a', 'b']) for ids in _IDS])
_ANNOTATIONS = dict(
    annotations=[
        dict(
            ids,
            answers=[dict(answer='table', answer_confidence='yes', answer_id=1)],
            position=dict(x=0.5, y=0.25, z=0),
            rotation=dict(_TURN),
        )
        for ids in _IDS
    ]
)


def _array(save: Callable, *arrays: object, **named: object) -> bytes:
    out = io.BytesIO()
    save(out, *arrays, **named)
    return out.getvalue()


_FILES = {
    'qa/SQA_train.json': json.dumps(_LIST),
    'qa/questions.json': json.dumps(_QUESTIONS),
    'qa/annotations.json': json.dumps(_ANNOTATIONS),
    'qa/answer_counter.json': json.dumps(['table', 'table', 'two', 'left']),
    f'scannet_data/{_SCENE}_vert.npy': _array(np.save, _POINTS),
    f'scannet_data/{_SCENE}_aligned_vert.npy': _array(np.save, _POINTS),
    f'scannet_data/{_SCENE}_ins_label.npy': _array(np.save, np.arange(12, dtype=np.uint32) // 6),
    f'scannet_data/{_SCENE}_sem_label.npy': _array(np.save, np.full(12, 5, dtype=np.uint32)),
    f'scannet_data/{_SCENE}_aligned_bbox.npy': _array(np.save, _BOXES),
    f'scans/{_SCENE}/{_SCENE}.txt': 'axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1 \n',
    f'objects/{_SCENE}.npy': _array(np.save, _POINTS),
    f'packed/{_SCENE}.npz': _array(np.savez, _POINTS),
}


def _sqa3d(folder: Path, file: str, **changes: object) -> Made:
    """Write everything of one scene; it is read as a training reads it."""
    from lm4ve.tasks.rooms import SQA3DDataset
    from lm4ve.tasks.rooms.datasets.scene_files import read_scene

    for name, content in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    first = 'LoadObjects' if 'objects' in file or 'packed' in file else 'LoadScene'
    how = dict(
        data_root=str(folder),
        pipeline=[dict(type=f'lm4ve.{first}')],
        answers=str(folder / 'qa/answer_counter.json'),
        serialize_data=False,
        on_corrupt='refuse',
    )

    def read() -> object:
        read_scene.cache_clear()
        data = SQA3DDataset('train', **how | changes)
        return [data.prepare_data(i) for i in range(len(data))]

    return folder / file, read


_OFFICIAL = dict(ann_file='qa/annotations.json', question_file='qa/questions.json')
for _name, _file, _changes in (
    ('sqa3d-list', 'qa/SQA_train.json', {}),
    ('sqa3d-questions', 'qa/questions.json', _OFFICIAL),
    ('sqa3d-annotations', 'qa/annotations.json', _OFFICIAL),
    ('answer-counter', 'qa/answer_counter.json', {}),
    ('scene-points', f'scannet_data/{_SCENE}_aligned_vert.npy', {}),
    ('scene-labels', f'scannet_data/{_SCENE}_sem_label.npy', {}),
    ('scene-boxes', f'scannet_data/{_SCENE}_aligned_bbox.npy', {}),
    ('scene-alignment', f'scans/{_SCENE}/{_SCENE}.txt', {}),
    ('objects-npy', f'objects/{_SCENE}.npy', {}),
    ('objects-npz', f'packed/{_SCENE}.npz', dict(data_prefix=dict(objects='packed'))),
):
    READERS[_name] = partial(_sqa3d, file=_file, **_changes)


def _beside(folder: Path, file: str, content: bytes) -> Made:
    from lm4ve.tasks.rooms.models.language import read_word_vectors
    from lm4ve.tasks.rooms.models.proposals import read_mean_sizes

    path = folder / file
    path.write_bytes(content)

    def read() -> object:
        if file.startswith('mean'):
            return read_mean_sizes(path, 'mean_sizes')
        return [x.numpy() for x in read_word_vectors(path)([['what', 'unk', 'chair']])]

    return path, read


_WORDS = {'unk': [0.5, -1.0, 2.0], 'what': [1.5, 0.0, -0.25], 'chair': [0.125, 3.0, 1.0]}
_LINES = ''.join(f'{word} {" ".join(map(str, v))}\n' for word, v in _WORDS.items())
_VECTORS = np.array(list(_WORDS.values()), dtype=np.float32)
_NPZ = _array(np.savez, words=np.array(list(_WORDS)), vectors=_VECTORS)
for _name, _file, _content in (
    ('word-vectors-npz', 'glove.npz', _NPZ),
    ('word-vectors-txt', 'glove.txt', _LINES.encode()),
    ('mean-sizes', 'means.npz', _array(np.savez, np.abs(_VECTORS) + 1)),
):
    READERS[_name] = partial(_beside, file=_file, content=_content)
