"""Images in shards are the images in folders: the same samples and checks."""

from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')

from torch.utils.data import DataLoader

from lm4ve.errors import UserError
from lm4ve.tasks.image import CheckedImageFolder, ImageNetShards
from tests.tasks.image.images import broken_files, encode, fill, write
from tools.dataset_converters.shards import Entry, main, write_shards

LOAD = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
CLASSES = ('n01440764', 'n01443537', 'n01484850')
CONFIG = """
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier')
train_dataloader = dict(
    dataset=dict(type='lm4ve.CheckedImageFolder', data_root='{root}', pipeline=[]))
"""


@pytest.fixture
def folders(tmp_path):
    fill(tmp_path / 'data', CLASSES)
    for i, path in enumerate(sorted((tmp_path / 'data').rglob('*.*'))):
        path.write_bytes(encode(seed=i, suffix=path.suffix.replace('JPEG', 'jpg')))
    return tmp_path / 'data'


@pytest.fixture
def shards(folders, tmp_path, capsys):
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=folders))
    main(['write', str(config), str(tmp_path / 'shards'), '--per-shard', '4'])
    assert '9 samples in 3 shards' in capsys.readouterr().out
    return tmp_path / 'shards'


def dataset(folder: Path, **kwargs) -> ImageNetShards:
    return ImageNetShards(data_root=str(folder), **{'classes': CLASSES, 'pipeline': LOAD, **kwargs})


def pixels(samples) -> set:
    return {(s['inputs'].numpy().tobytes(), s['data_samples'].gt_label.item()) for s in samples}


def test_samples_are_those_of_the_folders_in_every_worker(shards, folders, capsys):
    data = dataset(shards)
    single = CheckedImageFolder(data_root=str(folders), pipeline=LOAD)
    assert {*data.get_data_info(0)} == {*single.get_data_info(0)}
    assert len(data) == len(single) == len(pixels(single)) == 9
    loader = DataLoader(data, num_workers=2, batch_size=None)
    assert pixels(loader) == pixels(data) == pixels(single)
    # Mixed by the seed, so that a shard is no class.
    labels = [data.get_data_info(i)['gt_label'] for i in range(9)]
    assert labels != sorted(labels)
    main(['verify', str(shards / 'train.index.json')])
    assert '3 shards are as they were written' in capsys.readouterr().out


def test_broken_images_follow_the_policy(tmp_path):
    broken = broken_files()
    files = {'a/whole.jpg': encode(), **{f'b/{name}': data for name, data in broken.items()}}
    entries = [
        Entry(write(tmp_path / 'files' / name, data), name, 'ab'.index(name[0]))
        for name, data in files.items()
    ]
    write_shards(entries, tmp_path / 'broken', 'test', 99, lambda path: None)
    data = dataset(tmp_path / 'broken', split='test')
    assert data.test_mode and len(data) == 1 and data.num_corrupt == len(broken)
    with pytest.raises(UserError, match=f'{len(broken)} of {len(files)} images.*shard://.*b/'):
        dataset(tmp_path / 'broken', split='test', on_corrupt='refuse')
