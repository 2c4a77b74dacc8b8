"""Small whole files of every format that lm4ve reads, for ``fuzz.py`` to damage.

A reader writes its files into a folder and returns the file to damage and a function that reads
it as lm4ve does and returns the content.
"""

import functools
import io
import json
import random
import runpy
import sys
from collections.abc import Callable
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
READERS: dict[str, Callable[[Path], Made]] = {}
#: Readers of text formats of one record a line, which do not count their records.
UNCOUNTED = {*('obj', 'vqa-csv', 'vqa-jsonl', 'image-list', 'video-list', 'word-vectors-txt')}
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(24, 3)).round(4).astype('<f4')
FACES = [(i, (i + 1) % 24, (i + 7) % 24) for i in range(24)]


def reader(*names: str) -> Callable:
    """Register a function of a folder and a name under each of the names."""

    def add(function: Callable[[Path, str], Made]) -> Callable:
        READERS.update({name: functools.partial(function, name=name) for name in names})
        return function

    return add


def write(folder: Path, files: dict[str, object]) -> None:
    """Write texts, bytes, arrays and, as JSON, anything else."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            np.save(path, content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


def samples_of(kind: str, **options: object) -> list:
    """Build a data set of lm4ve and return its entries, through its pipeline if it has one."""
    for module in [m for n, m in sys.modules.items() if n.startswith('lm4ve.tasks')]:
        for value in list(vars(module).values()):
            if hasattr(value, 'cache_clear'):  # files that were read before
                value.cache_clear()
    random.seed(0)
    np.random.seed(0)
    data = DATASETS.build(dict(type=f'lm4ve.{kind}', serialize_data=False, **options))
    read = data.prepare_data if data.pipeline.transforms else data.get_data_info
    return [read(i) for i in range(len(data))]


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


@reader(*LANGUAGE_MODELS)
def language_model(folder: Path, name: str) -> Made:
    torch.manual_seed(0)
    sizes = dict(hidden_size=8, intermediate_size=12, num_attention_heads=2, vocab_size=8)
    model = LlamaModel(LlamaConfig(num_hidden_layers=1, **sizes))
    state, file = model.state_dict(), folder / LANGUAGE_MODELS[name]
    if name == 'gguf':
        writer = gguf.GGUFWriter(file, 'llama')
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
    elif name.startswith('meta'):
        named = {f'layers.0.{n}': state[f'layers.0.{ours}'] for n, (ours, _) in LAYER_NAMES.items()}
        named |= {'norm.weight': torch.ones(8), 'tok_embeddings.weight': torch.ones(8, 8)}
        torch.save(named, folder / 'consolidated.00.pth')
        params = dict(dim=8, multiple_of=4, n_heads=2, n_layers=1, norm_eps=1e-5, vocab_size=8)
        write(folder, {'params.json': params})
    else:
        model.save_pretrained(folder, max_shard_size='1KB' if name == 'weight-index' else '1GB')
    if name == 'torch':
        (folder / 'model.safetensors').unlink()
        torch.save(state, file)
    return file, lambda: LLMBlock(str(file if name == 'gguf' else folder)).source


@reader('checkpoint')
def checkpoint(folder: Path, name: str) -> Made:
    path = folder / 'epoch_1.pth'
    torch.save(dict(state_dict={'w': torch.randn(4, 6)}, meta=dict(epoch=1)), path)
    return path, lambda: select_state(read_checkpoint(path))


# ---------------------------------------------------------------------------- point clouds
def lines(rows: object, first: str = '') -> str:
    return ''.join(f'{first}{" ".join(map(str, row))}\n' for row in rows)


@functools.cache
def clouds() -> dict[str, str | bytes | np.ndarray]:
    """Return the name and the content of a file of each format."""
    ply = 'ply\nformat ascii 1.0\nelement vertex 24\n'
    ply += ''.join(f'property float {c}\n' for c in 'xyz')
    ply += 'element face 24\nproperty list uchar int vertex_indices\nend_header\n'
    pcd = 'VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 24\nHEIGHT 1\n'
    pcd += 'VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 24\nDATA ascii\n'
    binary = ply.replace('ascii', 'binary_little_endian').encode() + POINTS.tobytes()
    binary += np.array([(3, f) for f in FACES], [('n', 'u1'), ('f', '<i4', 3)]).tobytes()
    facets = np.zeros(24, [('normal', '<3f4'), ('at', '<9f4'), ('more', '<u2')])
    facets['at'] = POINTS[np.array(FACES)].reshape(24, 9)
    corners = (lines(POINTS[list(f)], 'vertex ') for f in FACES)
    loops = (f'facet normal 0 0 1\nouter loop\n{c}endloop\nendfacet\n' for c in corners)
    return {
        'ply': ply + lines(POINTS) + lines(FACES, '3 '),
        'off': 'OFF\n24 24 0\n' + lines(POINTS) + lines(FACES, '3 '),
        'obj': lines(POINTS, 'v ') + lines((np.array(FACES) + 1).tolist(), 'f '),
        'stl': f'solid a\n{"".join(loops)}endsolid a\n',
        'pcd': pcd + lines(POINTS),
        'npy': POINTS,
        'ply-binary': binary,
        'stl-binary': bytes(80) + np.array(24, '<u4').tobytes() + facets.tobytes(),
        'pcd-binary': pcd.replace('ascii', 'binary').encode() + POINTS.tobytes(),
    }


@reader(*clouds())
def cloud(folder: Path, name: str) -> Made:
    path = folder / f'cloud.{name.partition("-")[0]}'
    write(folder, {path.name: clouds()[name]})
    return path, lambda: read_points(path, 64)


@reader('h5')
def h5_file(folder: Path, name: str) -> Made:
    path = folder / 'main_split/test_objectdataset_augmentedrot_scale75.h5'
    path.parent.mkdir()
    with h5py.File(path, 'w') as file:
        file['data'] = np.resize(POINTS, (4, 24, 3))
        file['label'] = np.arange(4)
    return path, lambda: samples_of('ScanObjectNN', data_root=str(folder), split='test')


# --------------------------------------------------------------------------------- traffic
SCENES = {
    'argoverse-csv': '*.csv',
    'argoverse-map': '*{city}*.xml',
    'argoverse2-parquet': '*.parquet',
}


@reader(*SCENES)
def traffic(folder: Path, name: str) -> Made:
    if name.startswith('argoverse2'):
        tool = runpy.run_path(str(Path(__file__).parents[1] / 'motion/simulate_argoverse2.py'))
        tool['write_argoverse2'](folder, dict(train=1))
        make = functools.partial(Argoverse2Reader, folder / 'train')
    else:
        write_argoverse1(folder, dict(train=1))
        make = functools.partial(Argoverse1Reader, folder / 'train/data', folder / 'map_files')
    scene = make().files()[0]
    pattern = SCENES[name].format(city=make().read(scene).city)
    return next(folder.rglob(pattern)), lambda: make().read(scene)


@reader('motion-cache')
def motion_cache(folder: Path, name: str) -> Made:
    write_argoverse1(folder, dict(train=2))
    scenes = Argoverse1Reader(folder / 'train/data', folder / 'map_files')
    path = folder / 'train.cache'
    write_cache(path, [pack(scenes.read(f)) for f in scenes.files()])
    return path, lambda: list(SceneCache(path, verify=True))


# ---------------------------------------------------------------------- pictures and clips
@reader('image-jpg', 'image-png', 'image-list')
def images(folder: Path, name: str) -> Made:
    ending = 'png' if name == 'image-png' else 'jpg'
    (folder / 'val').mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'val/{i}.{ending}')
    write(folder, {'val.txt': ''.join(f'{i}.{ending} {10 + i}\n' for i in range(4))})
    options = dict(data_root=str(folder), ann_file='val.txt', split='val', verify=True)
    options |= dict(pipeline=[dict(type='mmpretrain.LoadImageFromFile')], on_corrupt='refuse')

    def read() -> list:
        samples = samples_of('CheckedImageNet', **options)
        return [(s['img'], int(s['gt_label'])) for s in samples]

    return folder / ('val.txt' if name == 'image-list' else f'val/0.{ending}'), read


@reader('video-decord', 'video-pyav', 'video-list')
def videos(folder: Path, name: str) -> Made:
    for i in range(2):
        frames = np.zeros((8, 32, 32), np.uint8)
        frames[np.arange(8), 4 + np.arange(8), 3 * np.arange(8) + i] = 200
        write_video(folder / f'{i}.mp4', frames, fps=8)
    write(folder, {'list.txt': '0.mp4 11\n1.mp4 12\n'})
    decoder = 'Decord' if name == 'video-decord' else 'PyAV'
    sample = dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=2, test_mode=True)
    ends = dict(type=f'mmaction.{decoder}Init'), dict(type=f'mmaction.{decoder}Decode')
    options = dict(ann_file=str(folder / 'list.txt'), data_prefix=dict(video=str(folder)))
    options |= dict(pipeline=[ends[0], sample, ends[1]], on_corrupt='refuse', verify='decode')

    def read() -> list:
        samples = samples_of('CheckedVideoDataset', test_mode=True, **options)
        return [(np.stack(s['imgs']), s['label']) for s in samples]

    return folder / ('list.txt' if name == 'video-list' else '0.mp4'), read


# --------------------------------------------------------------------- questions, captions
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
TEXTS = {
    'vqav2/v2_OpenEnded_mscoco_train2014_questions.json': VQA,
    'vqav2/v2_mscoco_train2014_annotations.json': VQA,
    'q.csv': ''.join(f'{",".join(row)}\n' for row in [ROWS[0], *(r.values() for r in ROWS)]),
    'q.jsonl': ''.join(json.dumps(row).replace('answers', 'answer') + '\n' for row in ROWS),
    'question_answers.json': [dict(id=i, qas=[dict(QA, qa_id=i, image_id=i)]) for i in range(3)],
    'dataset_coco.json': dict(dataset='coco', images=KARPATHY),
}
#: Reader -> the data set that reads its file in TEXTS, and options.
QUESTIONS = {
    'vqa-questions': ('VQAv2', dict(split='train2014')),
    'vqa-annotations': ('VQAv2', dict(split='train2014')),
    'vqa-csv': ('VQAFiles', dict(ann_file='q.csv')),
    'vqa-jsonl': ('VQAFiles', dict(ann_file='q.jsonl')),
    'visual-genome': ('VisualGenomeQA', {}),
    'karpathy': ('KarpathyRetrieval', dict(ann_file='dataset_coco.json', num_negatives=1)),
}


@reader(*QUESTIONS)
def questions(folder: Path, name: str) -> Made:
    """Questions and captions of images, which are empty files."""
    kind, options = QUESTIONS[name]
    images = *(f'train2014/COCO_train2014_{i:012d}.jpg' for i in range(4)), 'VG_100K/1.jpg'
    images = *images, *(f'{i}.png' for i in range(4)), 'val2014/1.png'
    write(folder, TEXTS | dict.fromkeys(images, ''))
    file = dict(zip(QUESTIONS, TEXTS, strict=True))[name]
    options = dict(options, data_root=str(folder), verify=False)
    return folder / file, lambda: samples_of(kind, **options)


# ----------------------------------------------------------------------------------- rooms
SCENE = 'scene0000_00'
ROOM_IDS = [dict(scene_id=SCENE, question_id=220602000000 + i) for i in range(3)]
ASKED = dict(situation='I am facing the door.', question='What is behind me?')
AT = dict(position=dict(x=0.5, y=0.25, z=0), rotation=dict(_x=0, _y=0, _z=0.6, _w=0.8))
LISTED = dict(ASKED, answers=['a'], position=[0.5, 0.25, 0, 0, 0, 0.6, 0.8])
TWICE = dict(alternative_situation=['a', 'b'])
VERTICES = RNG.integers(0, 200, (12, 6)).astype(np.float32)
ROOM = {
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
}
ROOM_FILES = {
    'sqa3d-list': 'qa/SQA_train.json',
    'sqa3d-questions': 'qa/questions.json',
    'sqa3d-annotations': 'qa/annotations.json',
    'scene-points': f'scannet_data/{SCENE}_aligned_vert.npy',
    'scene-boxes': f'scannet_data/{SCENE}_aligned_bbox.npy',
}


@reader(*ROOM_FILES)
def rooms(folder: Path, name: str) -> Made:
    """One scene with questions of either layout."""
    write(folder, ROOM)
    options = dict(data_root=str(folder), answers=str(folder / 'qa/answer_counter.json'))
    options |= dict(pipeline=[dict(type='lm4ve.LoadScene')], on_corrupt='refuse')
    if name in ('sqa3d-questions', 'sqa3d-annotations'):
        options |= dict(ann_file='qa/annotations.json', question_file='qa/questions.json')
    return folder / ROOM_FILES[name], lambda: samples_of('SQA3DDataset', split='train', **options)


@reader('word-vectors-npz', 'word-vectors-txt')
def word_vectors(folder: Path, name: str) -> Made:
    words, path = ('unk', 'what', 'chair'), folder / f'glove.{name[-3:]}'
    vectors, out = RNG.normal(size=(3, 3)).astype(np.float32), io.BytesIO()
    np.savez(out, words=np.array(words), vectors=vectors)
    rows = ((word, *row) for word, row in zip(words, vectors.tolist(), strict=True))
    write(folder, {path.name: lines(rows) if name.endswith('txt') else out.getvalue()})
    return path, lambda: list(read_word_vectors(path)([['what', 'unk', 'chair']]))
