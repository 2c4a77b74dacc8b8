"""Small whole files of every format that lm4ve reads, for ``fuzz.py`` to damage.

A reader writes its files into the current folder and returns the file to damage and a function
that reads it as lm4ve does and returns the content.
"""

import json
import random
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import h5py
import mmaction.datasets  # noqa: F401
import mmpretrain.datasets  # noqa: F401
import numpy as np
import torch
from mmengine.registry import DATASETS
from PIL import Image
from transformers import LlamaConfig, LlamaModel

from lm4ve.blocks import LLMBlock
from lm4ve.llm.meta_layout import LAYER_NAMES
from lm4ve.runner.checkpoint_files import read_checkpoint, select_state
from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader
from lm4ve.tasks.motion.datasets.cache import SceneCache, pack, write_cache
from lm4ve.tasks.motion.demo.traffic_files import write_argoverse1
from lm4ve.tasks.pointcloud.datasets.readers import read_points
from lm4ve.tasks.rooms.models.language import read_word_vectors
from lm4ve.tasks.video.video_files import write_video

Made = tuple[Path, Callable[[], object]]
#: Readers of text formats of one record a line, which do not count their records.
UNCOUNTED = {*('obj', 'vqa-csv', 'vqa-jsonl', 'image-list', 'video-list', 'word-vectors-txt')}
RNG = np.random.default_rng(0)


def start_anew() -> None:
    """Forget the files that were read before, and start the random numbers again."""
    for module in [m for n, m in sys.modules.items() if n.startswith('lm4ve.tasks')]:
        for value in list(vars(module).values()):
            if hasattr(value, 'cache_clear'):
                value.cache_clear()
    random.seed(0)
    np.random.seed(0)


def write(name: str, content: object) -> Path:
    """Write a text, bytes, an array or, as JSON, anything else; or let a function write it."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# ------------------------------------------------------------------------- language models
LANGUAGE_MODELS = {
    'safetensors': 'model.safetensors',
    'hf-config': 'config.json',
    'weight-index': 'model.safetensors.index.json',
    'torch': 'pytorch_model.bin',
    'gguf': 'model.gguf',
    'meta-weights': 'consolidated.00.pth',
    'meta-params': 'params.json',
}


def write_gguf(path: Path, model: LlamaModel) -> None:
    writer = gguf.GGUFWriter(path, 'llama')
    fields = dict(block_count=1, embedding_length=8, feed_forward_length=12, head_count=2)
    for field, value in dict(fields, layer_norm_rms_eps=1e-5, token_list=['a', 'b']).items():
        getattr(writer, f'add_{field}')(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for key, tensor in model.layers.state_dict(prefix='model.layers.').items():
        writer.add_tensor(names.get_name(key, ('.weight',)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def language_model(name: str) -> Made:
    torch.manual_seed(0)
    sizes = dict(hidden_size=8, intermediate_size=12, num_attention_heads=2, vocab_size=8)
    model = LlamaModel(LlamaConfig(num_hidden_layers=1, **sizes))
    state, folder = model.state_dict(), Path('llm')
    file = folder / LANGUAGE_MODELS[name]
    if name == 'gguf':
        write(file, partial(write_gguf, model=model))
    elif name.startswith('meta'):
        named = {f'layers.0.{n}': state[f'layers.0.{ours}'] for n, (ours, _) in LAYER_NAMES.items()}
        named |= {'norm.weight': torch.ones(8), 'tok_embeddings.weight': torch.ones(8, 8)}
        params = dict(dim=8, multiple_of=4, n_heads=2, n_layers=1, norm_eps=1e-5, vocab_size=8)
        write('llm/params.json', params)
        torch.save(named, folder / 'consolidated.00.pth')
    else:
        model.save_pretrained(folder, max_shard_size='1KB' if name == 'weight-index' else '1GB')
    if name == 'torch':
        (folder / 'model.safetensors').unlink()
        torch.save(state, file)
    return file, lambda: LLMBlock(str(file if name == 'gguf' else folder)).source


def checkpoint(name: str) -> Made:
    content = dict(state_dict={'w': torch.randn(4, 6)}, meta=dict(epoch=1))
    path = write('epoch_1.pth', partial(torch.save, content))
    return path, lambda: select_state(read_checkpoint(path))


# ---------------------------------------------------------------------------- point clouds
def lines(rows: object, first: str = '') -> str:
    return ''.join(f'{first}{" ".join(map(str, row))}\n' for row in rows)


POINTS = RNG.normal(size=(24, 3)).round(4).astype('<f4')
FACES = np.array([(i, (i + 1) % 24, (i + 7) % 24) for i in range(24)], '<i4')
_PLY = (
    'ply\nformat ascii 1.0\nelement vertex 24\n'
    'property float x\nproperty float y\nproperty float z\n'
    'element face 24\nproperty list uchar int vertex_indices\nend_header\n'
)
_BINARY = _PLY.replace('ascii', 'binary_little_endian')
_PCD = (
    'VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 24\nHEIGHT 1\n'
    'VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 24\nDATA ascii\n'
)
_CORNERS = [lines(corners, 'vertex ') for corners in POINTS[FACES]]
_LOOPS = [f'facet normal 0 0 1\nouter loop\n{c}endloop\nendfacet\n' for c in _CORNERS]
_FACETS = np.zeros(24, [('normal', '<3f4'), ('at', '<9f4'), ('more', '<u2')])
_FACETS['at'] = POINTS[FACES].reshape(24, 9)
_TRIANGLES = np.array([(3, f) for f in FACES], [('n', 'u1'), ('f', '<i4', 3)])
#: A file of each format; what follows a dash is not of its ending.
CLOUDS = {
    'ply': _PLY + lines(POINTS) + lines(FACES, '3 '),
    'off': 'OFF\n24 24 0\n' + lines(POINTS) + lines(FACES, '3 '),
    'obj': lines(POINTS, 'v ') + lines(FACES + 1, 'f '),
    'stl': f'solid a\n{"".join(_LOOPS)}endsolid a\n',
    'pcd': _PCD + lines(POINTS),
    'npy': POINTS,
    'ply-binary': _BINARY.encode() + POINTS.tobytes() + _TRIANGLES.tobytes(),
    'stl-binary': bytes(80) + np.array(24, '<u4').tobytes() + _FACETS.tobytes(),
    'pcd-binary': _PCD.replace('ascii', 'binary').encode() + POINTS.tobytes(),
}


def cloud(name: str) -> Made:
    path = write(f'cloud.{name.partition("-")[0]}', CLOUDS[name])
    return path, lambda: read_points(path, 64)


# --------------------------------------------------------------------------------- traffic
SCENES = {
    'argoverse-csv': '*.csv',
    'argoverse-map': '*{city}*.xml',
    'argoverse2-parquet': '*.parquet',
    'motion-cache': 'train.cache',
}


def traffic(name: str) -> Made:
    if name.startswith('argoverse2'):
        tool = runpy.run_path(str(Path(__file__).parents[1] / 'motion/simulate_argoverse2.py'))
        tool['write_argoverse2']('.', dict(train=1))
        make = partial(Argoverse2Reader, 'train')
    else:
        write_argoverse1('.', dict(train=2 if name == 'motion-cache' else 1))
        make = partial(Argoverse1Reader, 'train/data', 'map_files')
    scenes = [make().read(file) for file in make().files()]
    if name == 'motion-cache':
        write_cache('train.cache', [pack(scene) for scene in scenes])
        return Path('train.cache'), lambda: list(SceneCache('train.cache', verify=True))
    pattern = SCENES[name].format(city=scenes[0].city)
    return next(Path().rglob(pattern)), lambda: make().read(make().files()[0])


# ------------------------------------------------------------------------------- data sets
def picture(path: Path) -> None:
    pixels = np.random.default_rng(int(path.stem)).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def clip(path: Path) -> None:
    frames, steps = np.zeros((8, 32, 32), np.uint8), np.arange(8)
    frames[steps, 4 + steps, 3 * steps + int(path.stem)] = 200
    write_video(path, frames, fps=8)


def scans(path: Path) -> None:
    with h5py.File(path, 'w') as file:
        file['data'] = np.resize(POINTS, (4, 24, 3))
        file['label'] = np.arange(4)


IDS = [dict(question_id=10 * i + 1, image_id=i) for i in range(1, 4)]
ANSWERS = [dict(answer=a, answer_confidence='yes', answer_id=i) for i, a in enumerate('ab')]
LABELS = dict(question_type='is it', answer_type='yes/no', multiple_choice_answer='a')
VQA = dict(
    **dict(data_subtype='train2014', data_type='mscoco', info=dict(version='2.0')),
    task_type='Open-Ended',
    questions=[dict(i, question='Is it red?') for i in IDS],
    annotations=[dict(i, answers=ANSWERS, **LABELS) for i in IDS],
)
ROWS = [dict(image=f'{i}.png', question=f'What is {i}?', answers='a|b') for i in range(4)]
KARPATHY = [
    dict(filepath='val2014', filename=f'{i}.png', split='train', imgid=i, sentids=[i])
    | dict(sentences=[dict(raw=f'A cat {i}.', sentid=i)])
    for i in range(3)
]
QA = dict(question='What?', answer='A cat.')
SCENE = 'scene0000_00'
ROOM_IDS = [dict(scene_id=SCENE, question_id=220602000000 + i) for i in range(3)]
ASKED = dict(situation='I am facing the door.', question='What is behind me?')
AT = dict(position=dict(x=0.5, y=0.25, z=0), rotation=dict(_x=0, _y=0, _z=0.6, _w=0.8))
LISTED = dict(ASKED, answers=['a'], position=[0.5, 0.25, 0, 0, 0, 0.6, 0.8])
TWICE = dict(alternative_situation=['a', 'b'])
VERTICES = RNG.integers(0, 200, (12, 6)).astype(np.float32)
_SCANS = 'main_split/test_objectdataset_augmentedrot_scale75.h5'
_QUESTIONS = 'vqav2/v2_OpenEnded_mscoco_train2014_questions.json'
_ANNOTATIONS = 'vqav2/v2_mscoco_train2014_annotations.json'
_COCO = 'dataset_coco.json'
FILES = {
    **{f'val/{i}.{kind}': picture for i in range(4) for kind in ('jpg', 'png')},
    **{f'{kind}.txt': lines((f'{i}.{kind}', 10 + i) for i in range(4)) for kind in ('jpg', 'png')},
    **{'0.mp4': clip, '1.mp4': clip, 'clips.txt': '0.mp4 11\n1.mp4 12\n'},
    **{_SCANS: scans, _QUESTIONS: VQA, _ANNOTATIONS: VQA},
    'q.csv': ''.join(f'{",".join(row)}\n' for row in [ROWS[0], *(r.values() for r in ROWS)]),
    'q.jsonl': ''.join(json.dumps(row).replace('answers', 'answer') + '\n' for row in ROWS),
    'question_answers.json': [dict(id=i, qas=[dict(QA, qa_id=i, image_id=i)]) for i in range(3)],
    _COCO: dict(dataset='coco', images=KARPATHY),
    'qa/SQA_train.json': [i | LISTED for i in ROOM_IDS],
    'qa/questions.json': dict(questions=[i | ASKED | TWICE for i in ROOM_IDS]),
    'qa/annotations.json': dict(annotations=[i | AT | dict(answers=ANSWERS) for i in ROOM_IDS]),
    'qa/answer_counter.json': ['a', 'a', 'two', 'left'],
    f'scannet_data/{SCENE}_vert.npy': VERTICES,
    f'scannet_data/{SCENE}_aligned_vert.npy': VERTICES,
    f'scannet_data/{SCENE}_ins_label.npy': np.arange(12, dtype=np.uint32) // 6,
    f'scannet_data/{SCENE}_sem_label.npy': np.full(12, 5, dtype=np.uint32),
    f'scannet_data/{SCENE}_aligned_bbox.npy': np.array([[1.0, 1, 1, 2, 2, 2, 5, 0]]),
    f'scans/{SCENE}/{SCENE}.txt': 'axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1 \n',
    # The images of questions are not read.
    **{f'train2014/COCO_train2014_{i:012d}.jpg': '' for i in range(4)},
    **dict.fromkeys(['VG_100K/1.jpg', 'val2014/1.png', *(f'{i}.png' for i in range(4))], ''),
}
_HERE = dict(data_root='.', verify=False)
_IMAGES = dict(data_root='.', ann_file='jpg.txt', split='val', verify=True, on_corrupt='refuse')
_IMAGES['pipeline'] = [dict(type='mmpretrain.LoadImageFromFile')]
_CLIPS = dict(ann_file='clips.txt', test_mode=True, verify='decode', on_corrupt='refuse')
_SAMPLE = dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=2, test_mode=True)
_DECORD, _PYAV = (
    [dict(type=f'mmaction.{name}Init'), _SAMPLE, dict(type=f'mmaction.{name}Decode')]
    for name in ('Decord', 'PyAV')
)
_ROOMS = dict(data_root='.', answers='qa/answer_counter.json', split='train', on_corrupt='refuse')
_ROOMS['pipeline'] = [dict(type='lm4ve.LoadScene')]
_OFFICIAL = dict(_ROOMS, ann_file='qa/annotations.json', question_file='qa/questions.json')
#: Reader -> the file in FILES, the data set that reads it, and options.
SETS = {
    'image-jpg': ('val/0.jpg', 'CheckedImageNet', _IMAGES),
    'image-png': ('val/0.png', 'CheckedImageNet', dict(_IMAGES, ann_file='png.txt')),
    'image-list': ('jpg.txt', 'CheckedImageNet', _IMAGES),
    'video-decord': ('0.mp4', 'CheckedVideoDataset', dict(_CLIPS, pipeline=_DECORD)),
    'video-pyav': ('0.mp4', 'CheckedVideoDataset', dict(_CLIPS, pipeline=_PYAV)),
    'video-list': ('clips.txt', 'CheckedVideoDataset', dict(_CLIPS, pipeline=_PYAV)),
    'h5': (_SCANS, 'ScanObjectNN', dict(data_root='.', split='test')),
    'vqa-questions': (_QUESTIONS, 'VQAv2', dict(_HERE, split='train2014')),
    'vqa-annotations': (_ANNOTATIONS, 'VQAv2', dict(_HERE, split='train2014')),
    'vqa-csv': ('q.csv', 'VQAFiles', dict(_HERE, ann_file='q.csv')),
    'vqa-jsonl': ('q.jsonl', 'VQAFiles', dict(_HERE, ann_file='q.jsonl')),
    'visual-genome': ('question_answers.json', 'VisualGenomeQA', _HERE),
    'karpathy': (_COCO, 'KarpathyRetrieval', dict(_HERE, ann_file=_COCO, num_negatives=1)),
    'sqa3d-list': ('qa/SQA_train.json', 'SQA3DDataset', _ROOMS),
    'sqa3d-questions': ('qa/questions.json', 'SQA3DDataset', _OFFICIAL),
    'sqa3d-annotations': ('qa/annotations.json', 'SQA3DDataset', _OFFICIAL),
    'scene-points': (f'scannet_data/{SCENE}_aligned_vert.npy', 'SQA3DDataset', _ROOMS),
    'scene-boxes': (f'scannet_data/{SCENE}_aligned_bbox.npy', 'SQA3DDataset', _ROOMS),
}


def data_set(name: str) -> Made:
    """Write all files, and build a data set of lm4ve, whose pipeline reads them, if it has one."""
    for path, content in FILES.items():
        write(path, content)
    file, kind, options = SETS[name]

    def read() -> list:
        data = DATASETS.build(dict(type=f'lm4ve.{kind}', serialize_data=False, **options))
        read = data.prepare_data if data.pipeline.transforms else data.get_data_info
        return [read(i) for i in range(len(data))]

    return Path(file), read


def word_vectors(name: str) -> Made:
    words, vectors = ('unk', 'what', 'chair'), RNG.normal(size=(3, 3)).astype(np.float32)
    rows = ((word, *row) for word, row in zip(words, vectors.tolist(), strict=True))
    packed = partial(np.savez, words=np.array(words), vectors=vectors)
    path = write(f'glove.{name[-3:]}', packed if name.endswith('npz') else lines(rows))
    return path, lambda: list(read_word_vectors(path)([['what', 'unk', 'chair']]))


READERS: dict[str, Callable[[str], Made]] = {
    **dict.fromkeys(LANGUAGE_MODELS, language_model),
    'checkpoint': checkpoint,
    **dict.fromkeys(CLOUDS, cloud),
    **dict.fromkeys(SCENES, traffic),
    **dict.fromkeys(SETS, data_set),
    **dict.fromkeys(['word-vectors-npz', 'word-vectors-txt'], word_vectors),
}
