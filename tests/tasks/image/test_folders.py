"""Broken image data is reported, neither trained on nor evaluated; shards hold the same images."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip('mmpretrain')

from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

from lm4ve.data.image_files import find_defect
from lm4ve.data.shard_writing import Entry, write_shards
from lm4ve.errors import UserError
from lm4ve.tasks.image import CheckedImageFolder, CheckedImageNet, ImageNetShards
from tests.helpers.image.images import broken_files, encode, fill, write
from tools.dataset_converters.shards import main

LOAD = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
CLASSES = ('n01440764', 'n01443537', 'n01484850')
BROKEN = broken_files()


@pytest.fixture
def root(tmp_path):
    """Three classes of three images each."""
    fill(tmp_path / 'data', CLASSES)
    return tmp_path / 'data'


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Return a function that reads the log, in which several processes write."""
    file = tmp_path / 'log.txt'

    def record(message, logger=None, level=logging.INFO):
        with file.open('a') as f:
            f.write(f'{level} {message}\n')

    for module in ('integrity', 'folder_listing', 'labels'):
        monkeypatch.setattr(f'lm4ve.data.{module}.print_log', record)
    return lambda: file.read_text().splitlines() if file.exists() else []


def folder(root, **kwargs):
    return CheckedImageFolder(data_root=str(root), pipeline=LOAD, **kwargs)


def break_images(root) -> list:
    return [
        write(root / CLASSES[i % 3] / name, data)
        for i, (name, data) in enumerate(BROKEN.items())
    ]


# ------------------------------------------------------------------- one file
@pytest.mark.parametrize('name', BROKEN)
def test_broken_file_is_found(name, tmp_path):
    path = write(tmp_path / name, BROKEN[name])
    assert find_defect(path, decode=True)
    assert find_defect(path)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.ppm', '.tif'])
@pytest.mark.parametrize('decode', [False, True])
def test_whole_file_has_no_defect(suffix, decode, tmp_path):
    # ImageNet's n02105855_2933.JPEG is a PNG: the content counts.
    sizes = {f'x{n}': encode(n, suffix=suffix) for n in (1, 4, 7, 24)}
    for name, data in dict(sizes, y=encode() + bytes(40)).items():
        assert find_defect(write(tmp_path / f'{name}.JPEG', data), decode) is None


def test_pipe_behind_a_link_is_no_image(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'x.jpg').symlink_to(tmp_path / 'pipe')
    assert 'is no file' in find_defect(str(tmp_path / 'x.jpg'))


def test_damaged_size_is_refused_before_decoding(tmp_path):
    data = encode(64)
    size = data.index(b'\xff\xc0') + 5  # height and width, two bytes each
    path = write(tmp_path / 'x.jpg', data[:size] + b'\x20\0\x20\0' + data[size + 4 :])
    assert 'cannot hold 67 megapixels' in find_defect(path, decode=True)
    # A size above the limit of pixels is damage here, too.
    path = write(
        tmp_path / 'x.jpg', data[:size] + b'\xff\xff\xff\xff' + data[size + 4 :]
    )
    for decode in (False, True):
        assert 'cannot hold 179 megapixels' in find_defect(path, decode)
    # As few bytes as JPEG needs for so many pixels.
    blank = cv2.imencode(
        '.jpg', np.zeros((4000, 4000), np.uint8), (cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    )
    assert (
        find_defect(write(tmp_path / 'y.jpg', blank[1].tobytes()), decode=True) is None
    )


# ---------------------------------------------------------- folders and lists
def test_whole_data_set_equals_mmpretrains(root):
    ours, theirs = folder(root), CustomDataset(data_root=str(root), pipeline=LOAD)
    assert len(ours) == len(theirs) == 9 and ours.num_corrupt == 0
    assert ours.metainfo == theirs.metainfo
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a['inputs'], b['inputs'])
        assert a['data_samples'].gt_label == b['data_samples'].gt_label


def test_class_folder_without_images_is_refused(root):
    write(root / 'n09999999' / 'notes.txt', b'none')
    with pytest.raises(UserError, match='1 class folders .* hold no image: n09999999'):
        folder(root)


def test_names_in_another_order_than_their_folders_are_refused(root):
    assert folder(root, classes=('a', *CLASSES[1:])).metainfo['classes'][0] == 'a'
    with pytest.raises(UserError, match='out of order'):
        folder(root, classes=CLASSES[::-1])


LINES = (
    '../x.jpg 0',
    '/etc/x.jpg 0',
    f'{CLASSES[0]}/../../x.jpg 0',
    'http://host/x.jpg 0',
)


@pytest.mark.parametrize('with_label', [True, False])
@pytest.mark.parametrize('line', LINES)
def test_line_that_cannot_be_used_is_refused(root, line, with_label):
    lines = [f'{CLASSES[0]}/0.JPEG 0', line]
    lines = lines if with_label else [x.partition(' ')[0] for x in lines]
    write(root / 'list.txt', '\n'.join([*lines, '']).encode())
    with pytest.raises(UserError, match='line 2'):
        folder(root, ann_file='list.txt', with_label=with_label)


@pytest.mark.parametrize('test_mode', [True, False])
@pytest.mark.parametrize(
    'line, match',
    [
        ('0.png', 'line 3 is no path and label'),
        ('x.jpg -1', 'line 3 has the label -1'),
        ('x.jpg -100', 'line 3 has the label -100'),
        ('x.jpg 3', 'line 3 has the label 3, of 3 classes'),
        (f'{CLASSES[0]}//0.JPEG 1', 'line 3 gives .* the label 1, line 1 the label 0'),
    ],
)
def test_labels_that_no_class_has_are_refused(root, line, match, test_mode):
    text = f'{CLASSES[0]}/0.JPEG 0\n\n{line}\n'
    write(root / 'list.txt', text.encode())
    with pytest.raises(UserError, match=match):
        folder(root, ann_file='list.txt', classes=CLASSES, test_mode=test_mode)


@pytest.mark.parametrize('with_label', [True, False])
def test_a_byte_order_mark_is_no_part_of_the_first_name(root, with_label):
    text = f'{CLASSES[0]}/0.JPEG{" 0" * with_label}\n'
    write(root / 'list.txt', b'\xef\xbb\xbf' + text.encode())
    dataset = folder(root, ann_file='list.txt', with_label=with_label, test_mode=True)
    assert len(dataset) == 1 and dataset.num_corrupt == 0


@pytest.mark.parametrize('with_label', [True, False])
def test_folders_of_programs_and_links_back_are_no_data(root, with_label, log):
    write(root / '.git/0.JPEG', encode())
    write(root / CLASSES[0] / '.ipynb_checkpoints/0.JPEG', encode())
    write(root / CLASSES[0] / 'moving.mp4', b'')
    write(root / CLASSES[1] / 'unnamed', encode())
    (root / 'n00000000').symlink_to(root)
    data = folder(root, with_label=with_label)
    assert len(data) == 9
    if with_label:
        assert data.metainfo['classes'] == CLASSES
        assert data.get_gt_labels().tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert (
        '1 .mp4, 1 without an ending (n01440764/moving.mp4, n01443537/unnamed)'
        in log()[-1]
    )
    assert (
        '1 links to what is read already, or to a folder above (n00000000)' in log()[-1]
    )


@pytest.mark.parametrize('test_mode', [True, False])
def test_dead_links_and_pipes_follow_the_policy_for_corrupt_files(root, test_mode, log):
    (root / CLASSES[0] / 'dead.png').symlink_to('nowhere.png')
    os.mkfifo(root / CLASSES[1] / 'pipe.png')
    data = folder(root, test_mode=test_mode, on_corrupt='skip')
    assert len(data) == (9 if test_mode else 11)
    assert len([data[i] for i in range(len(data))]) == len(data)
    assert data.num_corrupt == 2 and all(
        'is no file' in d for d in data.corrupt_files.values()
    )
    with pytest.raises(UserError, match='dead.png'):
        folder(root, verify=True, on_corrupt='refuse')


@pytest.mark.parametrize(
    'folders, classes',
    [
        (('Mug', 'bottle'), ('bottle', 'mug')),
        (('bottle', 'mug'), ('Mug', 'Bottle')),
        (('a_mug', 'bottle'), ('Bottle', 'A mug')),
        (('caf\u00e9', 'bottle'), ('cafe\u0301', 'bottle')),
    ],
)
def test_names_that_are_written_otherwise_are_still_the_folders(
    folders, classes, tmp_path
):
    fill(tmp_path, folders)
    with pytest.raises(
        UserError, match=r'out of order.*Fix: the order of the sorted folders'
    ):
        folder(tmp_path, classes=classes)
    expected = tuple(sorted(folders))
    assert folder(tmp_path, classes=expected).metainfo['classes'] == expected
    assert folder(tmp_path, classes=('x', 'y')).metainfo['classes'] == ('x', 'y')


@pytest.mark.parametrize('other', ['cat ', 'cafe\u0301', '1.0'])
def test_folders_that_look_alike_are_refused(other, tmp_path):
    fill(tmp_path, ('cat', 'caf\u00e9', '1', other))
    with pytest.raises(UserError, match='names look alike'):
        folder(tmp_path)


def test_list_whose_last_line_has_no_end_is_read(root, log):
    text = f'{CLASSES[0]}/0.JPEG 0\n{CLASSES[1]}/0.JPEG 1'
    write(root / 'list.txt', text.encode())
    listed = folder(root, ann_file=str(root / 'list.txt'))
    assert [listed.get_data_info(i)['gt_label'] for i in range(2)] == [0, 1]
    (line,) = log()
    assert f"list.txt' has no line end: '{CLASSES[1]}/0.JPEG 1'" in line


def test_list_without_a_folder_holds_absolute_paths(root):
    text = f'{root}/{CLASSES[0]}/0.JPEG 0\n'
    write(root / 'list.txt', text.encode())
    options = dict(ann_file=str(root / 'list.txt'), data_prefix='')
    assert len(folder('', **options)) == 1
    wrong = {
        '': r'list\.txt',
        f'{text}nfs://a/x.jpg 0\n': 'line 2',
    }
    wrong[f'{text}x.jpg {10**20}\n'] = 'line 2'
    for lines, message in wrong.items():
        write(root / 'list.txt', lines.encode())
        with pytest.raises(UserError, match=message):
            folder('', **options)


# ------------------------------------------------------- training and testing
@pytest.mark.parametrize('workers', [0, 2])
def test_training_replaces_corrupt_images(workers, root, log):
    bad = break_images(root)
    dataset = folder(root)
    loader = DataLoader(dataset, num_workers=workers, collate_fn=lambda x: x)
    for _ in range(1 if workers else 2):
        read = [x['data_samples'].img_path for batch in loader for x in batch]
        assert len(read) == 9 + len(bad) and not set(read) & set(bad)
    # One warning per file; workers do not share their counts.
    for path in bad:
        assert sum(path in line for line in log()) in ((1, 2) if workers else (1,))
    assert set(dataset.corrupt_files) == (set() if workers else set(bad))
    assert all(line.startswith(str(logging.WARNING)) for line in log())


def test_scan_leaves_corrupt_images_out(root, log):
    bad = break_images(root)
    for split, count in (('train', 9 + len(bad)), ('val', 9)):
        (root.parent / split).symlink_to(root)
        options = dict(data_root=str(root.parent), metainfo=dict(classes=CLASSES))
        options['on_corrupt'] = 'skip'
        assert len(CheckedImageNet(split=split, **options)) == count
    dataset = folder(root, verify=True)
    assert len(dataset) == 9 and set(dataset.corrupt_files) == set(bad)
    labels = np.bincount([d['data_samples'].gt_label.item() for d in dataset])
    assert labels.tolist() == [3, 3, 3]
    assert f'{len(bad)} of {9 + len(bad)} images are corrupt' in log()[-1]


@pytest.fixture
def shards(root, tmp_path, capsys):
    data = dict(type='lm4ve.CheckedImageFolder', data_root=str(root), pipeline=[])
    model, config = dict(type='ImageClassifier'), tmp_path / 'config.py'
    cfg = dict(
        default_scope='mmpretrain', model=model, train_dataloader=dict(dataset=data)
    )
    Config(cfg).dump(config)
    main(['write', str(config), str(tmp_path / 'shards'), '--per-shard', '4'])
    assert '9 samples in 3 shards' in capsys.readouterr().out
    return tmp_path / 'shards'


def dataset(folder: Path, **kwargs) -> ImageNetShards:
    return ImageNetShards(
        data_root=str(folder), **{'classes': CLASSES, 'pipeline': LOAD, **kwargs}
    )


def pixels(samples) -> set:
    return {
        (s['inputs'].numpy().tobytes(), s['data_samples'].gt_label.item())
        for s in samples
    }


def test_samples_are_those_of_the_folders_in_every_worker(shards, root, capsys):
    data, single = dataset(shards), folder(root)
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
    files = {
        'a/whole.jpg': encode(),
        **{f'b/{name}': data for name, data in BROKEN.items()},
    }
    entries = [
        Entry(write(tmp_path / 'files' / name, data), name, 'ab'.index(name[0]))
        for name, data in files.items()
    ]
    write_shards(entries, tmp_path / 'broken', 'test', 99, lambda path: None)
    data = dataset(tmp_path / 'broken', split='test', on_corrupt='skip')
    assert data.test_mode and len(data) == 1 and data.num_corrupt == len(BROKEN)
    with pytest.raises(
        UserError, match=f'{len(BROKEN)} of {len(files)} images.*shard://.*b/'
    ):
        dataset(tmp_path / 'broken', split='test')
