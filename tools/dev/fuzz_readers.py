"""Small whole files of every format that lm4ve reads, for ``fuzz.py`` to damage.

The functions that write the tests' files write them. A reader writes into the current
folder and returns the file to damage and a function that reads it as lm4ve does and
returns the content.
"""

import json
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mmaction.datasets  # noqa: F401
import mmpretrain.datasets  # noqa: F401
import numpy as np
import torch
from mmengine.registry import DATASETS

from lm4ve.blocks import LLMBlock
from lm4ve.runner.checkpoint_files import read_checkpoint, select_state
from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader
from lm4ve.tasks.motion.datasets.cache import SceneCache, pack, write_cache
from lm4ve.tasks.motion.datasets.traffic_files import write_argoverse1
from lm4ve.tasks.pointcloud.datasets.readers import read_points
from lm4ve.tasks.rooms.models.language import read_word_vectors

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.helpers.families import write_huggingface, write_meta
from tests.helpers.gguf_files import write_gguf
from tests.helpers.motion.argoverse2_files import write_argoverse2
from tests.helpers.pointcloud import clouds
from tests.helpers.rooms.scenes import write_sqa3d
from tests.helpers.video.videos import write_noise
from tests.helpers.vqa import files as vqa

#: The file to damage, and a function that reads it as lm4ve does.
Sample = tuple[Path, Callable[[], object]]
#: Readers of text formats of one record a line, which do not count their records.
UNCOUNTED = {
    'obj',
    'vqa-csv',
    'vqa-jsonl',
    'image-list',
    'video-list',
    'word-vectors-txt',
}
#: Samples are written into the current folder, a temporary one of each reader.
HERE = Path()


def start_anew() -> None:
    """Forget the files that were read before, and start the random numbers again."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(('lm4ve.tasks', 'llm4seg')):
            continue
        for value in list(vars(module).values()):
            if hasattr(value, 'cache_clear'):
                value.cache_clear()
    random.seed(0)
    np.random.seed(0)


#: Reader -> the layout of the language model, and the file.
LANGUAGE_MODELS = {
    'safetensors': ('safetensors', 'model.safetensors'),
    'hf-config': ('safetensors', 'config.json'),
    'weight-index': ('sharded-safetensors', 'model.safetensors.index.json'),
    'torch': ('bin', 'pytorch_model.bin'),
    'gguf': ('gguf', 'model.gguf'),
    'meta-weights': ('meta', 'consolidated.00.pth'),
    'meta-params': ('meta', 'params.json'),
}


def language_model(name: str) -> Sample:
    """Write a language model of one layer, which a block reads."""
    layout, file = LANGUAGE_MODELS[name]
    path = Path('llm', file)
    path.parent.mkdir()
    sizes = dict(num_hidden_layers=1)
    checkpoint = path.parent
    if layout == 'gguf':
        write_gguf(path, 'llama', **sizes)
        checkpoint = path
    elif layout == 'meta':
        write_meta(path.parent, sizes=sizes)
    else:
        write_huggingface(path.parent, 'llama', layout, **sizes)
    return path, lambda: LLMBlock(str(checkpoint)).source


def checkpoint(name: str) -> Sample:
    """Write a checkpoint as MMEngine does."""
    path = Path('epoch_1.pth')
    torch.save(dict(state_dict={'w': torch.randn(4, 6)}, meta=dict(epoch=1)), path)
    return path, lambda: select_state(read_checkpoint(path))


#: What follows the dash is not of a file's ending.
CLOUDS = (
    'ply',
    'off',
    'obj',
    'stl',
    'pcd',
    'npy',
    'ply-binary',
    'stl-binary',
    'pcd-binary',
)


def cloud(name: str) -> Sample:
    """Write a point cloud or a mesh."""
    kind, _, binary = name.partition('-')
    path = Path(f'cloud.{kind}')
    if kind in ('pcd', 'npy'):
        clouds.write_cloud(path, clouds.cloud(24), text=not binary)
    else:
        clouds.write_mesh(path, text=not binary)
    return path, lambda: read_points(path, 64)


SCENES = {
    'argoverse-csv': '*.csv',
    'argoverse-map': '*{city}*.xml',
    'argoverse2-parquet': '*.parquet',
    'motion-cache': 'train.cache',
}


def traffic(name: str) -> Sample:
    """Write a scene of Argoverse, or a cache of scenes."""
    if name == 'motion-cache':
        return scene_cache()
    if name.startswith('argoverse2'):
        write_argoverse2(HERE, dict(train=1))
        build_reader = partial(Argoverse2Reader, 'train')
    else:
        write_argoverse1(HERE, dict(train=1))
        build_reader = partial(Argoverse1Reader, 'train/data', 'map_files')

    def read() -> object:
        reader = build_reader()
        return reader.read(reader.files()[0])

    pattern = SCENES[name].format(city=read().city)
    return next(HERE.rglob(pattern)), read


def scene_cache() -> Sample:
    """Write a cache of two simulated scenes."""
    write_argoverse1(HERE, dict(train=2))
    reader = Argoverse1Reader(HERE / 'train/data', HERE / 'map_files')
    scenes = [reader.read(file) for file in reader.files()]
    path = HERE / 'train.cache'
    write_cache(path, [pack(scene) for scene in scenes])

    def read() -> list:
        return list(SceneCache(path, verify=True))

    return path, read


# ---------------------------------------------------------------------------- data sets
def write_images() -> None:
    """Write pictures of two formats, and a list of each with labels."""
    for kind in ('jpg', 'png'):
        lines = []
        for i in range(4):
            vqa.write_image(Path(f'val/{i}.{kind}'), i, (24, 24))
            lines.append(f'{i}.{kind} {10 + i}\n')
        Path(f'{kind}.txt').write_text(''.join(lines))


def write_videos() -> None:
    """Write two videos, and a list of them with labels."""
    for i in range(2):
        write_noise(Path(f'{i}.mp4'), frames=8, seed=i)
    Path('clips.txt').write_text('0.mp4 11\n1.mp4 12\n')


def write_questions() -> None:
    """Write questions in the layouts of all data sets."""
    vqa.write_vqav2(HERE, dict(train2014=2))
    vqa.write_visual_genome(HERE, 3)
    vqa.write_karpathy(HERE, dict(train=3), coco=True)
    image = 'train2014/COCO_train2014_000000000001.jpg'
    rows = [
        dict(image=image, question=f'What is {i}?', answers='a|b') for i in range(4)
    ]
    vqa.write_csv(Path('q.csv'), rows)
    lines = [json.dumps(row).replace('answers', 'answer') for row in rows]
    Path('q.jsonl').write_text('\n'.join([*lines, '']))


def clips(decoder: str) -> dict:
    """Return a data set of videos that a decoder reads."""
    pipeline = [
        dict(type=f'mmaction.{decoder}Init'),
        dict(
            type='mmaction.SampleFrames', clip_len=4, frame_interval=2, test_mode=True
        ),
        dict(type=f'mmaction.{decoder}Decode'),
    ]
    return dict(
        type='CheckedVideoDataset',
        ann_file='clips.txt',
        test_mode=True,
        verify='decode',
        on_corrupt='refuse',
        pipeline=pipeline,
    )


write_rooms = partial(write_sqa3d, HERE)
write_scans = partial(clouds.write_scanobjectnn, HERE, per_split=4, points=24)
_IMAGES = dict(
    type='CheckedImageNet',
    data_root='.',
    split='val',
    verify=True,
    on_corrupt='refuse',
    pipeline=[dict(type='mmpretrain.LoadImageFromFile')],
)
_OWN = dict(type='VQAFiles', data_root='.', verify=False)
_VQA = dict(_OWN, type='VQAv2', split='train2014')
_GENOME = dict(_OWN, type='VisualGenomeQA')
_COCO = dict(
    _OWN, type='KarpathyRetrieval', ann_file='dataset_coco.json', num_negatives=1
)
_ROOMS = dict(
    type='SQA3DDataset',
    data_root='.',
    answers='qa/answer_counter.json',
    split='train',
    on_corrupt='refuse',
    pipeline=[dict(type='lm4ve.LoadScene')],
)
_BALANCED = 'qa/v1_balanced_{}_train_scannetv2.json'.format
_OFFICIAL = dict(
    ann_file=_BALANCED('sqa_annotations'), question_file=_BALANCED('questions')
)
_SCANS = dict(type='ScanObjectNN', data_root='.', split='test')
#: Reader -> what writes its files, the file, and the data set that reads it.
SETS = {
    'image-jpg': (write_images, 'val/0.jpg', dict(_IMAGES, ann_file='jpg.txt')),
    'image-png': (write_images, 'val/0.png', dict(_IMAGES, ann_file='png.txt')),
    'image-list': (write_images, 'jpg.txt', dict(_IMAGES, ann_file='jpg.txt')),
    'video-decord': (write_videos, '0.mp4', clips('Decord')),
    'video-pyav': (write_videos, '0.mp4', clips('PyAV')),
    'video-list': (write_videos, 'clips.txt', clips('PyAV')),
    'h5': (
        write_scans,
        'main_split/test_objectdataset_augmentedrot_scale75.h5',
        _SCANS,
    ),
    'vqa-questions': (
        write_questions,
        'vqav2/v2_OpenEnded_mscoco_train2014_questions.json',
        _VQA,
    ),
    'vqa-annotations': (
        write_questions,
        'vqav2/v2_mscoco_train2014_annotations.json',
        _VQA,
    ),
    'vqa-csv': (write_questions, 'q.csv', dict(_OWN, ann_file='q.csv')),
    'vqa-jsonl': (write_questions, 'q.jsonl', dict(_OWN, ann_file='q.jsonl')),
    'visual-genome': (write_questions, 'question_answers.json', _GENOME),
    'karpathy': (write_questions, 'dataset_coco.json', _COCO),
    'sqa3d-list': (write_rooms, 'qa/SQA_train.json', _ROOMS),
    'sqa3d-questions': (write_rooms, _OFFICIAL['question_file'], _ROOMS | _OFFICIAL),
    'sqa3d-annotations': (write_rooms, _OFFICIAL['ann_file'], _ROOMS | _OFFICIAL),
    'scene-points': (write_rooms, 'scannet_data/scene0000_00_aligned_vert.npy', _ROOMS),
    'scene-boxes': (write_rooms, 'scannet_data/scene0000_00_aligned_bbox.npy', _ROOMS),
}


def data_set(name: str) -> Sample:
    """Build a data set of lm4ve and return its entries, through its pipeline if it has one."""
    write, file, options = SETS[name]
    write()

    def read() -> list:
        kind = f'lm4ve.{options["type"]}'
        dataset = DATASETS.build(dict(options, type=kind, serialize_data=False))
        read_entry = dataset.get_data_info
        if dataset.pipeline.transforms:
            read_entry = dataset.prepare_data
        return [read_entry(i) for i in range(len(dataset))]

    return Path(file), read


def word_vectors(name: str) -> Sample:
    """Write word vectors, as arrays or as text."""
    words = ('unk', 'what', 'chair')
    path = Path(f'glove.{name[-3:]}')
    vectors = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    if path.suffix == '.npz':
        np.savez(path, words=np.array(words), vectors=vectors)
    else:
        np.savetxt(path, np.column_stack([words, vectors]), fmt='%s')

    def read() -> list:
        vectors_of = read_word_vectors(path)
        return list(vectors_of([['what', 'unk', 'chair']]))

    return path, read


READERS: dict[str, Callable[[str], Sample]] = {
    **dict.fromkeys(LANGUAGE_MODELS, language_model),
    'checkpoint': checkpoint,
    **dict.fromkeys(CLOUDS, cloud),
    **dict.fromkeys(SCENES, traffic),
    **dict.fromkeys(SETS, data_set),
    **dict.fromkeys(['word-vectors-npz', 'word-vectors-txt'], word_vectors),
}
