"""Data of the real formats and sizes for loader.py, made of two photographs that a package has.

Each function writes the training data of a config below a folder and changes the
config's data set to them. Contents repeat with other crops; formats, sizes and numbers
of points, frames or agents are those of the data that the config was written for.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import ConfigDict

from lm4ve.tasks.motion.datasets.argoverse import Argoverse1Reader
from lm4ve.tasks.motion.datasets.cache import pack, write_cache

#: Of ImageNet's training images: the usual size, and a quality at which files of these
#: smooth photographs have about 100 kB, as ImageNet's have on average (110 kB).
IMAGE_SIZE = (500, 375)
IMAGE_QUALITY = 98
#: The same of COCO's images: 150 kB here, 160 kB there.
COCO_SIZE = (640, 427)
COCO_QUALITY = 98
#: Something-Something V2 is 12 frames a second and 4 seconds on average; Kinetics-400
#: is 10 seconds at 30 frames a second. Both are usually kept at 340 x 256.
CLIP_SIZE = (340, 256)
SSV2 = dict(frames=46, fps=12)
K400 = dict(frames=300, fps=30)


def _crops(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Return RGB pictures of a width and a height, each cut out elsewhere."""
    from sklearn.datasets import load_sample_image

    photographs = [load_sample_image(name) for name in ('china.jpg', 'flower.jpg')]
    rng = np.random.default_rng(0)
    crops = []
    for i in range(count):
        picture = photographs[i % len(photographs)]
        zoom = rng.uniform(0.8, 1.0)
        height = int(zoom * picture.shape[0])
        width = int(zoom * picture.shape[1])
        top = rng.integers(picture.shape[0] - height + 1)
        left = rng.integers(picture.shape[1] - width + 1)
        channels = slice(None, None, rng.choice((-1, 1)))
        cut = picture[top : top + height, left : left + width, channels]
        crops.append(cv2.resize(cut, size, interpolation=cv2.INTER_AREA))
    return crops


def _write_jpeg(path: Path, rgb: np.ndarray, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(data.tobytes())


def imagenet(root: Path, dataset: ConfigDict, count: int) -> None:
    """Write JPEGs and a list of them."""
    for i, picture in enumerate(_crops(count, IMAGE_SIZE)):
        _write_jpeg(root / f'train/{i}.jpg', picture, IMAGE_QUALITY)
    (root / 'train.txt').write_text(''.join(f'{i}.jpg {i}\n' for i in range(count)))
    dataset.update(data_root=str(root), ann_file='train.txt', data_prefix='train')


def clips(root: Path, dataset: ConfigDict, count: int, frames: int, fps: int) -> None:
    """Write H.264 clips: a window that moves over a photograph, with the sensor's noise."""
    from lm4ve.tasks.video.datasets.video_files import write_video

    rng = np.random.default_rng(0)
    width, height = CLIP_SIZE
    (root / 'videos').mkdir(parents=True)
    for i, picture in enumerate(_crops(count, (640, 427))):
        tops = np.linspace(0, 427 - height, frames).astype(int)
        lefts = np.linspace(0, 640 - width, frames).astype(int)
        windows = [
            picture[top : top + height, left : left + width]
            for top, left in zip(tops, lefts, strict=True)
        ]
        film = np.stack(windows).astype(np.int16)
        film += rng.integers(-3, 4, film.shape, dtype=np.int16)
        write_video(root / f'videos/{i}.mp4', film.clip(0, 255).astype(np.uint8), fps)
    (root / 'list.txt').write_text(''.join(f'{i}.mp4 {i}\n' for i in range(count)))
    dataset.update(
        ann_file=str(root / 'list.txt'), data_prefix=dict(video=str(root / 'videos'))
    )


def scanobjectnn(root: Path, dataset: ConfigDict, count: int) -> None:
    """Write clouds of 2,048 points in the set's HDF5 file."""
    import h5py

    path = root / 'main_split/training_objectdataset_augmentedrot_scale75.h5'
    path.parent.mkdir(parents=True)
    with h5py.File(path, 'w') as f:
        f['data'] = np.random.default_rng(0).normal(size=(count, 2048, 3)).astype('f4')
        f['label'] = np.arange(count) % 15
    dataset.update(data_root=str(root))


def modelnet40(root: Path, dataset: ConfigDict, count: int) -> None:
    """Write one class of clouds with 8,192 points, as text."""
    rng = np.random.default_rng(0)
    names = [f'airplane_{i:04d}' for i in range(1, count + 1)]
    for name in names:
        path = root / f'airplane/{name}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, rng.normal(size=(8192, 6)), fmt='%.6f', delimiter=',')
    for split in ('train', 'test'):
        (root / f'modelnet40_{split}.txt').write_text('\n'.join(names))
    dataset.update(data_root=str(root))


def full_scenes(root: Path, dataset: ConfigDict, count: int) -> None:
    """Write a cache of so many copies of one scene with 32 agents and 128 lanes.

    Costs of models are counted for such a scene.
    """
    from lm4ve.tasks.motion.made_up import made_up_scene

    root.mkdir(parents=True)
    scene = made_up_scene(Argoverse1Reader.future_steps)
    record = pack(scene)
    write_cache(root / 'train.cache', [record] * count)
    dataset.update(cache=str(root / 'train.cache'))


def vqav2(root: Path, dataset: ConfigDict, count: int) -> None:
    """Write images of COCO's size with a question each."""
    answers = [
        dict(answer='red', answer_confidence='yes', answer_id=number)
        for number in range(1, 11)
    ]
    questions = []
    annotations = []
    for i, picture in enumerate(_crops(count, COCO_SIZE), 1):
        path = root / f'train2014/COCO_train2014_{i:012d}.jpg'
        _write_jpeg(path, picture, COCO_QUALITY)
        question = dict(
            question_id=i, image_id=i, question='What color is the roof of the house?'
        )
        questions.append(question)
        annotation = dict(
            question_id=i,
            image_id=i,
            question_type='what color is the',
            answer_type='other',
            multiple_choice_answer='red',
            answers=answers,
        )
        annotations.append(annotation)
    head = dict(
        info=dict(
            version='2.0', year=2017, description='This is v2.0 of the VQA dataset.'
        ),
        data_type='mscoco',
        data_subtype='train2014',
        license=dict(name=''),
    )
    contents = {
        'v2_OpenEnded_mscoco_train2014_questions': dict(
            head, task_type='Open-Ended', questions=questions
        ),
        'v2_mscoco_train2014_annotations': dict(head, annotations=annotations),
        'vocabulary': ['red'],
    }
    files = root / 'vqav2'
    files.mkdir()
    for name, content in contents.items():
        (files / f'{name}.json').write_text(json.dumps(content))
    dataset.update(data_root=str(root), vocabulary=str(files / 'vocabulary.json'))
