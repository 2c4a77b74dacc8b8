"""Small whole files of every kind that lm4ve reads, for ``fuzz.py`` to damage.

A reader writes its files into a folder and returns the file to mutate and a function
that reads it as the suite does. That function raises what the suite raises, and returns
what it read. Images, videos and lists are in ``fuzz_media.py``.
"""

import json
import runpy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lm4ve.blocks import LLMBlock

Made = tuple[Path, Callable[[], object]]
READERS: dict[str, Callable[[Path], Made]] = {}
#: Readers of formats that are cut unseen where a line ends -> why.
LINES_WITHOUT_COUNT = dict(
    obj='the format has no counts; those that some programs write as comments are compared',
    xyz='the format is one point a line, without a count',
    txt='the format is one point a line, without a count',
    **{'shape-list': 'a list is one name a line, without a count'},
)
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


def _source(folder: Path) -> dict:
    """Build a block; its record holds a hash of its weights."""
    return LLMBlock(str(folder), layers=(0,)).source


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
    return folder / mutated, lambda: _source(folder)


for _name, _weights, _file in (
    ('safetensors', 'safetensors', 'model.safetensors'),
    ('torch', 'bin', 'pytorch_model.bin'),
    ('hf-config', 'safetensors', 'config.json'),
):
    READERS[_name] = partial(_huggingface, weights=_weights, mutated=_file)


@reader('gguf')
def _gguf(folder: Path) -> Made:
    import gguf

    path = folder / 'model.gguf'
    writer = gguf.GGUFWriter(path, 'llama')
    writer.add_block_count(1)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(['a', 'b'])
    names = dict(q='attn_q', k='attn_k', v='attn_v', o='attn_output', gate='ffn_gate')
    names |= dict(up='ffn_up', down='ffn_down', norm1='attn_norm', norm2='ffn_norm')
    for name, tensor in _llama(names, 'blk.0').items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, lambda: LLMBlock(str(path))


@reader('weight-index')
def _weight_index(folder: Path) -> Made:
    _, read = _huggingface(folder, 'safetensors', 'model.safetensors')
    shard = folder / 'model-00001-of-00001.safetensors'
    (folder / 'model.safetensors').rename(shard)
    names = [*(f'model.layers.0.{k}.weight' for k in _HUGGINGFACE.values()), 'model.norm.weight']
    index = folder / 'model.safetensors.index.json'
    index.write_text(json.dumps(dict(metadata={}, weight_map=dict.fromkeys(names, shard.name))))
    return index, read


def _meta(folder: Path, mutated: str) -> Made:
    """Weights in two files, as from 13B on: each holds half of every matrix."""
    state = _llama(_META, 'layers.0')
    state |= {'norm.weight': torch.ones(_WIDTH), 'tok_embeddings.weight': torch.ones(8, _WIDTH)}
    for i in range(2):
        part = {}
        for name, value in state.items():
            by_column = any(n in name for n in ('wo', 'w2', 'tok'))
            halves = value.chunk(2, dim=int(by_column)) if value.dim() == 2 else (value, value)
            part[name] = halves[i].contiguous()
        torch.save(part, folder / f'consolidated.{i:02d}.pth')
    params = dict(dim=_WIDTH, multiple_of=4, n_heads=2, n_layers=1, norm_eps=1e-5, vocab_size=8)
    (folder / 'params.json').write_text(json.dumps(params))
    return folder / mutated, lambda: _source(folder)


READERS['meta'] = partial(_meta, mutated='params.json')
READERS['meta-weights'] = partial(_meta, mutated='consolidated.00.pth')
READERS['meta-weights-part'] = partial(_meta, mutated='consolidated.01.pth')


@reader('checkpoint')
def _checkpoint(folder: Path) -> Made:
    from lm4ve.runner.checkpoint_files import read_checkpoint, select_state

    path = folder / 'epoch_1.pth'
    torch.manual_seed(0)
    meta = dict(epoch=1, iter=4, config='model = dict()')
    torch.save(dict(state_dict={'head.weight': torch.randn(4, 6)}, meta=meta), path)
    return path, lambda: select_state(read_checkpoint(path))


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
    txt=_lines(np.hstack([_POINTS, _POINTS]).tolist()).replace(' ', ','),
)


def _packed_ply() -> bytes:
    header = _PLY.replace('ascii', 'binary_little_endian').encode()
    faces = np.array([(3, f) for f in _FACES], [('n', 'u1'), ('f', '<i4', 3)])
    return header + _POINTS.astype('<f4').tobytes() + faces.tobytes()


def _packed_stl() -> bytes:
    rows = np.zeros(24, [('normal', '<3f4'), ('at', '<9f4'), ('more', '<u2')])
    rows['at'] = _POINTS[np.array(_FACES)].reshape(24, 9)
    return bytes(80) + np.array(24, '<u4').tobytes() + rows.tobytes()


def _text_stl() -> bytes:
    facets = (
        'facet normal 0 0 1\nouter loop\n' + _lines(_POINTS[list(f)], 'vertex ') + 'endloop\n'
        'endfacet\n'
        for f in _FACES
    )
    return f'solid a\n{"".join(facets)}endsolid a\n'.encode()


_PACKED = dict(
    ply=_packed_ply(),
    stl=_packed_stl(),
    pcd=_PCD.replace('ascii', 'binary').encode() + _POINTS.astype('<f4').tobytes(),
)


def _packed(folder: Path, name: str, data: bytes) -> Made:
    from lm4ve.tasks.pointcloud.datasets.readers import read_points

    path = folder / name
    path.write_bytes(data)
    return path, partial(read_points, path, 64)


for _name, _data in _PACKED.items():
    READERS[f'{_name}-binary'] = partial(_packed, name=f'cloud.{_name}', data=_data)
READERS['stl'] = partial(_packed, name='cloud.stl', data=_text_stl())


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


@reader('points-cache')
def _points_cache(folder: Path) -> Made:
    from lm4ve.tasks.pointcloud.datasets.readers import cached_array

    def read() -> np.ndarray:
        return np.array(cached_array(folder, 'clouds', 'key', lambda: _POINTS.astype(np.float32)))

    read()
    return next(folder.glob('*.npy')), read


@reader('shape-list')
def _shape_list(folder: Path) -> Made:
    from lm4ve.tasks.pointcloud import ModelNet40

    names = [f'airplane_{i:04d}' for i in range(1, 9)]
    (folder / 'airplane').mkdir()
    for name in names:
        (folder / 'airplane' / f'{name}.txt').write_text(_CLOUDS['txt'])
    path = folder / 'modelnet40_test.txt'
    path.write_text(''.join(f'{name}\n' for name in names))

    def read() -> list:
        shutil.rmtree(folder / 'cache', ignore_errors=True)
        cache = str(folder / 'cache')
        data = ModelNet40(data_root=str(folder), split='test', num_points=8, cache_dir=cache)
        return [data.get_data_info(i)['gt_label'] for i in range(len(data))]

    return path, read


# --------------------------------------------------------------------- traffic
def _traffic(folder: Path, layout: str, pattern: str) -> Made:
    from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader
    from lm4ve.tasks.motion.demo.traffic_files import write_argoverse1

    if layout == 'argoverse1':
        write_argoverse1(folder, dict(train=1))
        data = folder / 'train/data'
        make = partial(Argoverse1Reader, data, folder / 'map_files')
    else:
        tool = Path(__file__).parents[1] / 'motion/simulate_argoverse2.py'
        runpy.run_path(str(tool))['write_argoverse2'](folder, dict(train=1))
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


@reader('motion-cache')
def _motion_cache(folder: Path) -> Made:
    from lm4ve.tasks.motion import Argoverse1Reader
    from lm4ve.tasks.motion.datasets.cache import SceneCache, pack, write_cache
    from lm4ve.tasks.motion.demo.traffic_files import write_argoverse1

    write_argoverse1(folder, dict(train=2))
    reader = Argoverse1Reader(folder / 'train/data', folder / 'map_files')
    path = folder / 'train.cache'
    write_cache(path, [pack(reader.read(f)) for f in reader.files()])
    return path, lambda: list(SceneCache(path, verify=True))


@reader('regions')
def _regions(folder: Path) -> Made:
    from lm4ve.tasks.motion.models.regions import Regions

    path = folder / 'regions.json'
    hull = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.5]]
    path.write_text(json.dumps(dict(centres=[[1.0, 2.0], [3.0, 4.0]], hulls=[hull, hull])))

    return path, lambda: dict(Regions.load(str(path)).named_buffers())
