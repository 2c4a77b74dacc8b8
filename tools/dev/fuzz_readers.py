"""Small whole files of every kind that lm4ve reads, for ``fuzz.py`` to damage.

A reader writes its files into a folder and returns the file to mutate and a function
that reads it as the suite does. That function raises what the suite raises.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError

Made = tuple[Path, Callable[[], object]]
READERS: dict[str, Callable[[Path], Made]] = {}
_WIDTH, _HIDDEN = 8, 12


def reader(name: str) -> Callable:
    def add(function: Callable[[Path], Made]) -> Callable:
        READERS[name] = function
        return function

    return add


# ------------------------------------------------------------ language models
def _llama(names: dict[str, str], prefix: str) -> dict[str, torch.Tensor]:
    d, h = _WIDTH, _HIDDEN
    shapes = dict(q=(d, d), k=(d, d), v=(d, d), o=(d, d), gate=(h, d), up=(h, d), down=(d, h))
    shapes |= dict(norm1=(d,), norm2=(d,))
    torch.manual_seed(0)
    return {f'{prefix}.{names[k]}.weight': torch.randn(s) for k, s in shapes.items()}


_HUGGINGFACE = dict(
    **{k: f'self_attn.{k}_proj' for k in 'qkvo'},
    **{k: f'mlp.{k}_proj' for k in ('gate', 'up', 'down')},
    norm1='input_layernorm',
    norm2='post_attention_layernorm',
)
_META = dict(
    **{k: f'attention.w{k}' for k in 'qkvo'},
    gate='feed_forward.w1',
    up='feed_forward.w3',
    down='feed_forward.w2',
    norm1='attention_norm',
    norm2='ffn_norm',
)


def _huggingface(folder: Path, weights: str, mutated: str) -> Made:
    state = _llama(_HUGGINGFACE, 'model.layers.0')
    state['model.norm.weight'] = torch.ones(_WIDTH)
    config = dict(
        model_type='llama',
        hidden_size=_WIDTH,
        intermediate_size=_HIDDEN,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=8,
    )
    (folder / 'config.json').write_text(json.dumps(config))
    if weights == 'safetensors':
        from safetensors.torch import save_file

        save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})
    else:
        torch.save(state, folder / 'pytorch_model.bin')
    return folder / mutated, partial(LLMBlock, str(folder), layers=(0,))


for _name, _weights, _file in (
    ('safetensors', 'safetensors', 'model.safetensors'),
    ('torch', 'bin', 'pytorch_model.bin'),
    ('hf-config', 'safetensors', 'config.json'),
):
    READERS[_name] = partial(_huggingface, weights=_weights, mutated=_file)


@reader('meta')
def _meta(folder: Path) -> Made:
    state = _llama(_META, 'layers.0')
    state |= {'norm.weight': torch.ones(_WIDTH), 'tok_embeddings.weight': torch.ones(8, _WIDTH)}
    torch.save(state, folder / 'consolidated.00.pth')
    params = dict(dim=_WIDTH, multiple_of=4, n_heads=2, n_layers=1, norm_eps=1e-5, vocab_size=8)
    (folder / 'params.json').write_text(json.dumps(params))
    return folder / 'params.json', partial(LLMBlock, str(folder), layers=(0,))


# ---------------------------------------------------------------- point clouds
_POINTS = np.random.default_rng(0).normal(size=(24, 3)).round(4)
_FACES = [(i, (i + 1) % 24, (i + 7) % 24) for i in range(24)]


def _lines(rows: object, first: str = '') -> str:
    return ''.join(f'{first}{" ".join(map(str, row))}\n' for row in rows)


_PLY = 'ply\nformat ascii 1.0\nelement vertex 24\n'
_PLY += ''.join(f'property float {c}\n' for c in 'xyz')
_PLY += 'element face 24\nproperty list uchar int vertex_indices\nend_header\n'
_PCD = 'VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 24\nHEIGHT 1\n'
_PCD += 'VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 24\nDATA ascii\n'
_CLOUDS = dict(
    ply=_PLY + _lines(_POINTS) + _lines(_FACES, '3 '),
    off='OFF\n24 24 0\n' + _lines(_POINTS) + _lines(_FACES, '3 '),
    obj=_lines(_POINTS, 'v ') + _lines((np.array(_FACES) + 1).tolist(), 'f '),
    pcd=_PCD + _lines(_POINTS),
    xyz=_lines(_POINTS),
)


def _cloud(folder: Path, ending: str) -> Made:
    from lm4ve.tasks.pointcloud.datasets.readers import read_points

    path = folder / f'cloud.{ending}'
    if ending == 'npy':
        np.save(path, _POINTS.astype(np.float32))
    else:
        path.write_text(_CLOUDS[ending])
    return path, partial(read_points, path, 64)


for _name in (*_CLOUDS, 'npy'):
    READERS[_name] = partial(_cloud, ending=_name)


@reader('h5')
def _h5(folder: Path) -> Made:
    import h5py

    from lm4ve.tasks.pointcloud.datasets.point_clouds import read_h5

    path = folder / 'clouds.h5'
    with h5py.File(path, 'w') as file:
        file['data'] = np.resize(_POINTS, (4, 24, 3)).astype(np.float32)
        file['label'] = np.arange(4)
    return path, partial(read_h5, path)


# --------------------------------------------------------------------- traffic
def _traffic(folder: Path, layout: str, pattern: str) -> Made:
    from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader
    from lm4ve.tasks.motion.demo.traffic_files import write_argoverse1, write_argoverse2

    if layout == 'argoverse1':
        write_argoverse1(folder, dict(train=1))
        data = folder / 'train/data'
        make = partial(Argoverse1Reader, data, folder / 'map_files')
    else:
        write_argoverse2(folder, dict(train=1))
        data = folder / 'train'
        make = partial(Argoverse2Reader, data)
    scene = make().files()[0]
    city = '*' if layout == 'argoverse2' else make().read(scene).city
    return next(folder.rglob(pattern.format(city=city))), lambda: make().read(scene)


for _name, _layout, _pattern in (
    ('argoverse1-csv', 'argoverse1', '*.csv'),
    ('argoverse1-map', 'argoverse1', '*{city}*.xml'),
    ('argoverse1-boxes', 'argoverse1', '*{city}*.npy'),
    ('argoverse1-lanes', 'argoverse1', '*{city}*laneid_map.json'),
    ('argoverse2-parquet', 'argoverse2', '*.parquet'),
    ('argoverse2-map', 'argoverse2', 'log_map_archive_*.json'),
):
    READERS[_name] = partial(_traffic, layout=_layout, pattern=_pattern)


# ----------------------------------------------------------- images and videos
@reader('video-list')
def _video_list(folder: Path) -> Made:
    from lm4ve.tasks.video.datasets.list_conversion import read_videomae

    path = folder / 'train.csv'
    path.write_text(''.join(f'videos/{i}.mp4 {i % 5}\n' for i in range(20)))
    return path, partial(read_videomae, path)


@reader('image')
def _image(folder: Path) -> Made:
    from PIL import Image

    from lm4ve.tasks.image_files import find_defect

    path = folder / 'image.jpg'
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)

    def read() -> None:
        if (defect := find_defect(str(path), decode=True)) is not None:
            raise UserError(defect)

    return path, read


# ------------------------------------------------------------- questions and captions
_VQA_HEAD = dict(data_subtype='train2014', data_type='mscoco', info=dict(version='2.0'))
_VQA_IDS = [dict(question_id=10 * i + 1, image_id=i) for i in range(1, 4)]
_VQA_QUESTIONS = dict(
    _VQA_HEAD,
    task_type='Open-Ended',
    questions=[dict(ids, question='Is it red?') for ids in _VQA_IDS],
)
_VQA_ANNOTATIONS = dict(
    _VQA_HEAD,
    annotations=[
        dict(
            ids,
            question_type='is it',
            answer_type='yes/no',
            multiple_choice_answer='yes',
            answers=[
                dict(answer=a, answer_confidence='yes', answer_id=i)
                for i, a in enumerate(['yes', 'no'])
            ],
        )
        for ids in _VQA_IDS
    ],
)
_KARPATHY = dict(
    dataset='coco',
    images=[
        dict(
            filepath='val2014',
            filename=f'{i}.png',
            split='train',
            imgid=i,
            sentids=[2 * i, 2 * i + 1],
            sentences=[dict(raw=f'A cat {i}.', sentid=2 * i), dict(raw='A dog.', sentid=2 * i + 1)],
        )
        for i in range(3)
    ],
)
_GENOME = [
    dict(id=i, qas=[dict(qa_id=i, image_id=i, question='What is it?', answer='A cat.')])
    for i in range(3)
]
_ROWS = [(f'{i}.png', f'What, where is {i}?', 'a cat|a dog') for i in range(4)]


def _vision_language(folder: Path, kind: str, file: str, content: str) -> Made:
    """Write a file of a data set beside the others of it; the images are empty files."""
    from lm4ve.tasks import vision_language as tasks
    from lm4ve.tasks.vision_language.datasets.vocabulary import read_vocabulary

    questions = folder / 'vqav2/v2_OpenEnded_mscoco_train2014_questions.json'
    questions.parent.mkdir()
    questions.write_text(json.dumps(_VQA_QUESTIONS))
    annotations = folder / 'vqav2/v2_mscoco_train2014_annotations.json'
    annotations.write_text(json.dumps(_VQA_ANNOTATIONS))
    images = *(f'train2014/COCO_train2014_{i:012d}.jpg' for i in range(4)), 'VG_100K/1.jpg'
    for image in (*images, *(f'{i}.png' for i in range(4)), 'val2014/1.png'):
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).touch()
    path = folder / file
    path.write_text(content)
    how = dict(data_root=str(folder), verify=False, serialize_data=False)
    draw = dict(how, test_mode=False, num_negatives=1)
    read = dict(
        VQAv2=partial(tasks.VQAv2, 'train2014', **how),
        VQAFiles=partial(tasks.VQAFiles, file, **how),
        VisualGenomeQA=partial(tasks.VisualGenomeQA, **how),
        KarpathyRetrieval=partial(tasks.KarpathyRetrieval, file, **draw),
        CaptionFiles=partial(tasks.CaptionFiles, file, **draw),
        vocabulary=partial(read_vocabulary, path),
    )[kind]

    def read_all() -> None:
        data = read()
        if kind != 'vocabulary':
            for i in range(len(data)):
                data.get_data_info(i)

    return path, read_all


def _csv(header: str) -> str:
    lines = [header, *(f'{image},"{text}",{answers}' for image, text, answers in _ROWS)]
    return ''.join(f'{line}\n' for line in lines)


def _lines_of(*names: str) -> str:
    return ''.join(f'{json.dumps(dict(zip(names, row, strict=True)))}\n' for row in _ROWS)


for _name, _kind, _file, _content in (
    ('vqa-questions', 'VQAv2', 'vqav2/v2_OpenEnded_mscoco_train2014_questions.json', None),
    ('vqa-annotations', 'VQAv2', 'vqav2/v2_mscoco_train2014_annotations.json', None),
    ('vqa-csv', 'VQAFiles', 'q.csv', _csv('image,question,answers')),
    ('vqa-jsonl', 'VQAFiles', 'q.jsonl', _lines_of('image', 'question', 'answer')),
    ('visual-genome', 'VisualGenomeQA', 'question_answers.json', json.dumps(_GENOME)),
    ('karpathy', 'KarpathyRetrieval', 'dataset_coco.json', json.dumps(_KARPATHY)),
    ('captions-csv', 'CaptionFiles', 'c.csv', _csv('image,caption,other')),
    ('captions-jsonl', 'CaptionFiles', 'c.jsonl', _lines_of('image', 'caption', 'other')),
    ('vocabulary', 'vocabulary', 'v.json', json.dumps(['yes', 'no', '2', "it's"])),
):
    if _content is None:
        _whole = _VQA_QUESTIONS if 'questions' in _name else _VQA_ANNOTATIONS
        _content = json.dumps(_whole)
    READERS[_name] = partial(_vision_language, kind=_kind, file=_file, content=_content)
