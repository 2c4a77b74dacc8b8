"""One small data set of every class that reads files, and damage to a sample of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm4ve.data.shard_writing import Entry, write_shards
from lm4ve.tasks.image.datasets.synsets import class_indices
from lm4ve.tasks.motion.datasets.argoverse import Argoverse1Reader
from lm4ve.tasks.motion.datasets.cache import preprocess_split
from lm4ve.tasks.motion.datasets.traffic_files import write_argoverse1
from tests.helpers.image import images
from tests.helpers.medical import files as medical
from tests.helpers.pointcloud import clouds
from tests.helpers.rooms.scenes import write_sqa3d
from tests.helpers.video.videos import pipeline as video_pipeline
from tests.helpers.video.videos import write_list, write_noise
from tests.helpers.vqa import files as vqa

CLASSES = ('n01440764', 'n01443537')
LOAD_IMAGE = [dict(type='LoadImageFromFile')]


@dataclass
class Sample:
    """A data set of which one sample can be damaged.

    Attributes:
        config: The data set, without ``test_mode``, ``on_corrupt`` and ``verify``.
        file: What is damaged.
        place: Offset and size of the sample in it; None: all of it.
    """

    config: dict[str, Any]
    file: Path
    place: tuple[int, int] | None = None

    def damage(self, kind: str) -> None:
        """Damage the sample: 'cut', 'empty', 'missing', or 'storage', which gives an error.

        A link to itself is a real error of the storage (ELOOP), also for root.
        """
        if kind == 'storage':
            self.file.unlink()
            self.file.symlink_to(self.file.name)
            return
        if self.place is not None:
            self._overwrite(kind)
        elif kind == 'missing':
            # A file that is gone is not listed where folders are.
            self.file.unlink()
            self.file.symlink_to('nowhere')
        else:
            data = self.file.read_bytes()
            self.file.write_bytes(data[: len(data) // 2] if kind == 'cut' else b'')

    def _overwrite(self, kind: str) -> None:
        """Replace the sample in its file by zeros, all or the first half of it."""
        offset, size = self.place
        if kind == 'cut':
            size //= 2
        data = bytearray(self.file.read_bytes())
        data[offset : offset + size] = bytes(size)
        self.file.write_bytes(data)


def _images(root: Path, **config: Any) -> Sample:
    images.fill(root, CLASSES, 2)
    fields = dict(data_root=str(root), classes=CLASSES, pipeline=LOAD_IMAGE, **config)
    return Sample(fields, root / CLASSES[0] / '0.JPEG')


def _variant(root: Path, names, folder: Path, **config: Any) -> Sample:
    images.fill(folder, names, 1)
    fields = dict(data_root=str(root), pipeline=LOAD_IMAGE, **config)
    return Sample(fields, folder / sorted(names)[0] / '0.JPEG')


def image_variant(root: Path) -> Sample:
    return _variant(root, class_indices('a'), root, variant='a')


def image_corruptions(root: Path) -> Sample:
    folder = root / 'fog/1'
    fields = dict(corruptions=['fog'], severities=[1])
    return _variant(root, class_indices('c'), folder, **fields)


def _shards(root: Path, files: list[Path], damaged: int = 0) -> Sample:
    """Write the shard of some files; the first one that is whole is the sample.

    Args:
        root (Path): Where to.
        files (list[Path]): The files.
        damaged (int): The tool takes so many of them for damaged, and leaves them out.
    """
    entries = [Entry(str(path), path.name, i % 2) for i, path in enumerate(files)]
    names = [str(path) for path in files[:damaged]]

    def find_defect(path: str) -> str | None:
        return 'is bad' if path in names else None

    (shard,) = write_shards(entries, root, 'train', 99, find_defect)
    _, offset, size, _ = shard['samples'][0]
    return Sample({}, root / shard['name'], (offset, size))


def image_shards(root: Path, damaged: int = 0) -> Sample:
    images.fill(root / 'files', CLASSES, 2)
    sample = _shards(root, sorted((root / 'files').glob('*/*')), damaged)
    sample.config.update(data_root=str(root), classes=CLASSES, pipeline=LOAD_IMAGE)
    return sample


def _videos(root: Path) -> list[Path]:
    return [write_noise(root / f'{i}.mp4', seed=i) for i in range(3)]


def videos(root: Path) -> Sample:
    paths = _videos(root)
    ann_file = write_list(root / 'list.txt', paths)
    return Sample(dict(ann_file=ann_file, pipeline=video_pipeline()), paths[0])


def video_shards(root: Path, damaged: int = 0) -> Sample:
    sample = _shards(root, _videos(root / 'files'), damaged)
    ann_file = str(root / 'train.index.json')
    sample.config.update(ann_file=ann_file, pipeline=video_pipeline())
    return sample


def vqa_files(root: Path) -> Sample:
    rows = []
    for i in range(3):
        vqa.write_image(root / f'{i}.png', seed=i)
        rows.append(f'{i}.png,What?,yes\n')
    (root / 'q.csv').write_text('image,question,answer\n' + ''.join(rows))
    config = dict(ann_file='q.csv', data_root=str(root), pipeline=LOAD_IMAGE)
    return Sample(config, root / '0.png')


def caption_files(root: Path) -> Sample:
    rows = []
    for i in range(3):
        vqa.write_image(root / f'{i}.png', seed=i)
        rows.append(f'{i}.png,the number {i}\n')
    (root / 'c.csv').write_text('image,caption\n' + ''.join(rows))
    config = dict(ann_file='c.csv', data_root=str(root), num_negatives=1)
    return Sample(dict(config, pipeline=LOAD_IMAGE), root / '0.png')


def vqav2(root: Path) -> Sample:
    vqa.write_vqav2(root)
    config = dict(split='train2014', data_root=str(root), pipeline=LOAD_IMAGE)
    return Sample(config, root / 'train2014/COCO_train2014_000000000001.jpg')


def visual_genome(root: Path) -> Sample:
    vqa.write_visual_genome(root)
    config = dict(data_root=str(root), pipeline=LOAD_IMAGE)
    return Sample(config, root / 'VG_100K_2/1.jpg')


def karpathy(root: Path) -> Sample:
    vqa.write_flickr30k(root)
    (folder,) = root.rglob('dataset_flickr30k.json')
    content = json.loads(folder.read_text())
    first = next(i for i in content['images'] if i['split'] == 'train')
    (file,) = root.rglob(first['filename'])
    config = dict(
        ann_file=folder.name,
        data_root=str(folder.parent),
        data_prefix=dict(img_path=file.parent.name),
        num_negatives=1,
        pipeline=LOAD_IMAGE,
    )
    return Sample(config, file)


def rooms(root: Path) -> Sample:
    write_sqa3d(root)
    config = dict(
        split='train', data_root=str(root), pipeline=[dict(type='lm4ve.LoadScene')]
    )
    return Sample(config, root / 'scannet_data/scene0000_00_aligned_vert.npy')


def cloud_folder(root: Path) -> Sample:
    for name in ('a', 'b'):
        for i in range(2):
            clouds.write_cloud(root / f'train/{name}/{i}.npy', clouds.cloud(30, i))
    return Sample(dict(data_root=str(root)), root / 'train/a/0.npy')


def shapenet(root: Path) -> Sample:
    for i in range(3):
        clouds.write_cloud(root / f'shapenet_pc/0269115{i}-x.npy', clouds.cloud(30, i))
    return Sample(dict(data_root=str(root)), root / 'shapenet_pc/02691150-x.npy')


def modelnet40(root: Path) -> Sample:
    clouds.write_modelnet40_text(root)
    config = dict(data_root=str(root), num_points=20)
    return Sample(config, root / 'airplane/airplane_0001.txt')


def decathlon(root: Path) -> Sample:
    medical.write_decathlon(root, count=6)
    load = dict(type='lm4ve.LoadVolume', channels=4, num_classes=4)
    config = dict(data_root=str(root), ratios=(1.0, 0.0, 0.0), pipeline=[load])
    return Sample(config, root / 'labelsTr/0.nii.gz')


def masks(root: Path) -> Sample:
    medical.write_lesions(root, 'busi')
    config = dict(
        data_root=str(root),
        img_suffix='.png',
        seg_map_suffix='.png',
        data_prefix=dict(img_path='images', seg_map_path='masks/0'),
        metainfo=dict(classes=('background', 'lesion')),
        pipeline=LOAD_IMAGE,
    )
    return Sample(config, root / 'masks/0/benign (0).png')


#: Class -> a function that writes a data set below a folder.
FILES: dict[str, Callable[[Path], Sample]] = dict(
    CheckedImageFolder=_images,
    CheckedImageNet=_images,
    ImageNetVariant=image_variant,
    ImageNetC=image_corruptions,
    ImageNetShards=image_shards,
    CheckedVideoDataset=videos,
    CheckedRepeatAugDataset=videos,
    VideoShards=video_shards,
    RepeatAugVideoShards=video_shards,
    VQAFiles=vqa_files,
    VQAv2=vqav2,
    VisualGenomeQA=visual_genome,
    CaptionFiles=caption_files,
    KarpathyRetrieval=karpathy,
    SQA3DDataset=rooms,
    PointCloudFolder=cloud_folder,
    ShapeNet=shapenet,
    ModelNet40=modelnet40,
    Decathlon=decathlon,
    CheckedSegDataset=masks,
)


def scanobjectnn(root: Path) -> Sample:
    clouds.write_scanobjectnn(root)
    config = dict(data_root=str(root), split='train', variant='objectbg')
    return Sample(config, root / 'main_split/training_objectdataset.h5')


def medmnist(root: Path) -> Sample:
    file = medical.write_medmnist(root, 'retinamnist', 5, count=8)
    return Sample(dict(data_root=str(root), flag='retinamnist'), file)


def motion(root: Path, damaged: int = 0) -> Sample:
    write_argoverse1(root, dict(train=3))
    for path in sorted((root / 'train/data').iterdir())[:damaged]:
        path.write_bytes(b'')
    reader = Argoverse1Reader(root / 'train/data', root / 'map_files')
    preprocess_split(reader, root / 'train.cache')
    return Sample(dict(cache=str(root / 'train.cache')), root / 'train.cache')


#: The same of classes with one file for all samples.
ONE_FILE = dict(ScanObjectNN=scanobjectnn, MedMNIST=medmnist, MotionDataset=motion)

#: Those that only train.
TRAINING_ONLY = ('CheckedRepeatAugDataset', 'RepeatAugVideoShards')

#: Classes that draw or carry their samples.
NO_FILES = (
    'DigitsDataset',
    'TexturedDigits',
    'UltrasoundDemo',
    'TrafficDataset',
    'PrimitivesDataset',
    'MovingDigitsDataset',
    'EasyVQA',
    'DigitScenesVQA',
    'DigitScenes',
    'Rooms',
)
