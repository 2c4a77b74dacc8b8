"""Images, videos and their lists, for ``fuzz.py`` to damage."""

import json
from functools import partial
from pathlib import Path

import numpy as np
from fuzz_readers import LINES_WITHOUT_COUNT, READERS, Made, reader

from lm4ve.errors import UserError

_RNG = np.random.default_rng(0)
_PIXELS = _RNG.integers(0, 255, (48, 48, 3), dtype=np.uint8)
for _name in ('image-list', 'video-list', 'video-list-videomae', 'video-list-ssv2'):
    LINES_WITHOUT_COUNT[_name] = 'a list is one file and label a line, without a count'


def _save(path: Path) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_PIXELS).save(path)
    return path


# ---------------------------------------------------------------------- images
def _image(folder: Path, ending: str) -> Made:
    """A file by itself, decoded by OpenCV as the pipelines do."""
    import cv2

    from lm4ve.tasks.base.image_files import find_defect

    path = _save(folder / f'image.{ending}')

    def read() -> np.ndarray:
        if (defect := find_defect(str(path), decode=True)) is not None:
            raise UserError(defect)
        return cv2.imread(str(path))

    return path, read


for _ending in ('jpg', 'png', 'webp', 'bmp'):
    READERS[f'image-{_ending}'] = partial(_image, ending=_ending)


def _image_tree(folder: Path, mutated: str) -> Made:
    """ImageNet's layout: folders of classes to train on, a list of images to test on."""
    from mmpretrain.datasets import LoadImageFromFile, PackInputs  # noqa: F401

    from lm4ve.tasks.image import CheckedImageNet

    wnids = 'n01440764', 'n01443537', 'n01484850'
    for wnid in wnids:
        _save(folder / f'train/{wnid}/{wnid}_0.JPEG')
    names = [_save(folder / f'val/{i:02d}.JPEG').name for i in range(6)]
    (folder / 'val.txt').write_text(''.join(f'{n} {10 + i}\n' for i, n in enumerate(names)))
    pipeline = [dict(type='mmpretrain.LoadImageFromFile')]
    common = dict(data_root=str(folder), pipeline=pipeline, on_corrupt='refuse', verify=True)

    def read() -> list:
        if mutated == 'val.txt':
            data = CheckedImageNet(split='val', ann_file='val.txt', **common)
        else:
            classes = dict(classes=list(wnids))
            data = CheckedImageNet(split='train', data_prefix='train', metainfo=classes, **common)
        samples = [data[i] for i in range(len(data))]
        return [(Path(s['img_path']).name, int(s['gt_label']), s['img']) for s in samples]

    return folder / mutated, read


READERS['image-tree'] = partial(_image_tree, mutated='train/n01443537/n01443537_0.JPEG')
READERS['image-list'] = partial(_image_tree, mutated='val.txt')


@reader('image-mask')
def _mask(folder: Path) -> Made:
    from PIL import Image

    from lm4ve.analysis.iou.mask_datasets import _open

    path = folder / 'mask.png'
    Image.fromarray(np.kron(np.arange(36).reshape(6, 6), np.ones((8, 8))).astype(np.uint8)).save(
        path
    )
    return path, lambda: np.asarray(_open(path))


# ---------------------------------------------------------------------- videos
def _write_video(path: Path) -> Path:
    """Eight frames of a moving square, in the codec of the ending."""
    import av

    from lm4ve.tasks.video.video_files import write_video

    frames = np.zeros((8, 32, 32), np.uint8)
    for i, frame in enumerate(frames):
        frame[4 + i : 14 + i, 3 * i : 3 * i + 9] = 200
    if path.suffix == '.mp4':
        write_video(path, frames, fps=8)
        return path
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libvpx' if path.suffix == '.webm' else 'mpeg4', rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 32, 'yuv420p'
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, -1), format='rgb24')
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def _video(folder: Path, ending: str, decoder: str, mutated: str = '') -> Made:
    """A list of two videos, decoded by mmaction2's transforms."""
    import mmaction.datasets  # noqa: F401

    from lm4ve.tasks.video import CheckedVideoDataset

    names = [f'{name}.{ending}' for name in ('first', 'other')]
    for name in names:
        _write_video(folder / name)
    (folder / 'list.txt').write_text(''.join(f'{n} {11 + i}\n' for i, n in enumerate(names)))
    pipeline = [
        dict(type=f'mmaction.{decoder}Init'),
        dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=2, test_mode=True),
        dict(type=f'mmaction.{decoder}Decode'),
    ]

    def read() -> list:
        data = CheckedVideoDataset(
            ann_file=str(folder / 'list.txt'),
            data_prefix=dict(video=str(folder)),
            pipeline=pipeline,
            test_mode=True,
            on_corrupt='refuse',
            verify='decode',
        )
        samples = [data[i] for i in range(len(data))]
        return [(Path(s['filename']).name, s['label'], np.stack(s['imgs'])) for s in samples]

    return folder / (mutated or names[0]), read


for _ending, _decoder in (('mp4', 'Decord'), ('mp4', 'PyAV'), ('webm', 'Decord'), ('avi', 'PyAV')):
    READERS[f'video-{_ending}-{_decoder.lower()}'] = partial(
        _video, ending=_ending, decoder=_decoder
    )
READERS['video-list'] = partial(_video, ending='mp4', decoder='PyAV', mutated='list.txt')


# ----------------------------------------------------------------------- lists
@reader('video-list-videomae')
def _videomae(folder: Path) -> Made:
    from lm4ve.tasks.video.datasets.list_conversion import read_videomae

    path = folder / 'train.csv'
    path.write_text(''.join(f'videos/{i}.mp4 {i + 5}\n' for i in range(20)))
    return path, partial(read_videomae, path)


def _ssv2(folder: Path, mutated: str) -> Made:
    from lm4ve.tasks.video.datasets.list_conversion import read_ssv2

    templates = [f'Moving {way} of something' for way in ('left', 'right', 'up')]
    labels, split = folder / 'labels.json', folder / 'train.json'
    labels.write_text(json.dumps({t: str(i) for i, t in enumerate(templates)}))
    answers = folder / 'answers.csv'
    answers.write_text(''.join(f'{i};{templates[i % 3]}\n' for i in range(12)))
    samples = [
        dict(id=str(i), template=templates[i % 3].replace('something', '[something]'))
        for i in range(8)
    ]
    split.write_text(json.dumps(samples))
    file = answers if mutated == 'answers' else split
    return folder / f'{mutated}{".csv" if file is answers else ".json"}', lambda: read_ssv2(
        labels, file
    )


READERS['video-list-ssv2'] = partial(_ssv2, mutated='answers')
READERS['video-json-ssv2'] = partial(_ssv2, mutated='train')
READERS['video-labels-ssv2'] = partial(_ssv2, mutated='labels')
