"""Broken image data is named; it neither trains nor counts in silence."""

import logging
import warnings

import numpy as np
import pytest

pytest.importorskip('mmpretrain')

import cv2
import torch
from torch.utils.data import DataLoader

from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.image_files import find_defect
from lm4ve.tasks.image import CheckedImageFolder, CheckedImageNet
from tests.tasks.image.images import broken_files, encode, fill, write

LOAD = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
CLASSES = ('n01440764', 'n01443537', 'n01484850')


@pytest.fixture
def root(tmp_path):
    """Three classes of three images each."""
    fill(tmp_path / 'data', CLASSES)
    return tmp_path / 'data'


@pytest.fixture
def log(monkeypatch):
    """What the data sets log: (level, message)."""
    lines = []

    def record(message, logger=None, level=logging.INFO):
        lines.append((level, message))

    monkeypatch.setattr('lm4ve.tasks.base.integrity.print_log', record)
    return lines


def folder(root, **kwargs):
    return CheckedImageFolder(data_root=str(root), pipeline=LOAD, **kwargs)


def break_images(root) -> list:
    return [
        write(root / CLASSES[i % 3] / name, data)
        for i, (name, data) in enumerate(broken_files().items())
    ]


# ------------------------------------------------------------------- one file
@pytest.mark.parametrize('name', broken_files())
def test_broken_file_is_found_by_decoding(name, tmp_path):
    path = write(tmp_path / name, broken_files()[name])
    assert find_defect(path, decode=True)


@pytest.mark.parametrize('name', sorted(set(broken_files()) - {'headless.jpg'}))
def test_broken_file_is_found_by_its_ends(name, tmp_path):
    path = write(tmp_path / name, broken_files()[name])
    assert find_defect(path)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.ppm', '.tif'])
@pytest.mark.parametrize('decode', [False, True])
def test_whole_file_passes(suffix, decode, tmp_path):
    path = write(tmp_path / f'x{suffix}', encode(suffix=suffix))
    assert find_defect(path, decode) is None


def test_content_counts_and_not_the_extension(tmp_path):
    # ImageNet's n02105855_2933.JPEG is a PNG.
    path = write(tmp_path / 'x.JPEG', encode(suffix='.png'))
    assert find_defect(path) is None and find_defect(path, True) is None


def test_bytes_behind_the_end_marker_are_no_defect(tmp_path):
    path = write(tmp_path / 'x.jpg', encode() + b'\0' * 40)
    assert find_defect(path) is None and find_defect(path, True) is None


def test_a_damaged_size_is_refused_before_it_is_decoded_for_long(tmp_path):
    data = encode(64)
    size = data.index(b'\xff\xc0') + 5  # height and width, two bytes each
    path = write(tmp_path / 'x.jpg', data[:size] + b'\x20\0\x20\0' + data[size + 4 :])
    assert 'cannot hold the 67 million pixels' in find_defect(path, decode=True)
    # As few bytes as JPEG needs for so many pixels.
    blank = cv2.imencode('.jpg', np.zeros((4000, 4000), np.uint8), (cv2.IMWRITE_JPEG_OPTIMIZE, 1))
    assert find_defect(write(tmp_path / 'y.jpg', blank[1].tobytes()), decode=True) is None


def test_no_message_shows_the_bytes_of_what_is_no_image(tmp_path):
    path = write(tmp_path / 'x.jpg', b'root:x:0:0:secret')
    assert find_defect(path) == find_defect(path, decode=True) == 'is not an image'


def test_missing_file_is_a_defect(tmp_path):
    assert 'does not exist' in find_defect(str(tmp_path / 'x.jpg'))


# ------------------------------------------------------------------- folders
def test_whole_data_set_is_as_mmpretrain_reads_it(root):
    from mmpretrain.datasets import CustomDataset

    ours = folder(root)
    theirs = CustomDataset(data_root=str(root), pipeline=LOAD)
    assert len(ours) == len(theirs) == 9 and ours.num_corrupt == 0
    assert ours.metainfo == theirs.metainfo
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a['inputs'], b['inputs'])
        assert a['data_samples'].gt_label == b['data_samples'].gt_label


def test_class_folder_without_images_is_refused_by_name(root):
    (root / 'n09999999').mkdir()
    write(root / 'n09999999' / 'notes.txt', b'none')
    with pytest.raises(UserError) as e:
        folder(root)
    for word in ('n09999999', '.jpeg', 'Fix:'):
        assert word in str(e.value)
    assert CLASSES[0] not in str(e.value)


def test_folder_whose_classes_are_all_empty_is_refused(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(UserError, match='hold no image: a'):
        folder(tmp_path)


def test_root_without_class_folders_is_refused(tmp_path):
    write(tmp_path / 'x.jpg', encode())
    with pytest.raises(UserError, match='no class folders'):
        folder(tmp_path)


def test_missing_root_is_refused_when_built_and_through_the_registry(tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        folder(tmp_path / 'nowhere')
    with pytest.raises(UserError, match="train' does not exist"):
        DATASETS.build(dict(type='lm4ve.CheckedImageNet', data_root=str(tmp_path), split='train'))


def test_missing_annotation_file_is_refused(root):
    with pytest.raises(UserError, match='nope.txt'):
        folder(root, ann_file='nope.txt')


def test_wrong_number_of_class_folders_is_refused(root):
    with pytest.raises(UserError, match='3 class folders.*1000 classes'):
        CheckedImageNet(data_root=str(root))


def test_unknown_policy_is_refused(root):
    with pytest.raises(UserError, match='on_corrupt'):
        folder(root, on_corrupt='ignore')


# ------------------------------------------------------------------- training
def test_training_replaces_corrupt_images_and_counts_each_once(root, log):
    bad = break_images(root)
    dataset = folder(root)
    assert len(dataset) == 9 + len(bad) and not log
    for _ in range(2):
        read = [dataset[i]['data_samples'].img_path for i in range(len(dataset))]
        assert not set(read) & set(bad)
    assert dataset.num_corrupt == len(bad)
    assert set(dataset.corrupt_files) == set(bad)
    # One warning a file, with its name.
    assert len(log) == len(bad)
    for path in bad:
        assert sum(path in message for _, message in log) == 1
    assert {level for level, _ in log} == {logging.WARNING}


def test_refused_image_is_named_when_it_is_read(root):
    path = write(root / CLASSES[0] / '0a.jpg', broken_files()['half.jpg'])
    dataset = folder(root, on_corrupt='refuse')
    dataset[0]
    with pytest.raises(UserError) as e:
        dataset[1]
    assert path in str(e.value) and 'truncated' in str(e.value)


def test_refused_images_are_named_up_front_with_verify(root):
    path = write(root / CLASSES[0] / 'zero.jpg', b'')
    with pytest.raises(UserError) as e:
        folder(root, on_corrupt='refuse', verify=True)
    assert path in str(e.value) and '1 of 10' in str(e.value)


@pytest.mark.parametrize('count', [1, 4])
def test_wholly_broken_data_set_ends_training(count, tmp_path, log):
    for i in range(count):
        write(tmp_path / 'a' / f'{i}.jpg', b'')
    dataset = folder(tmp_path, max_refetch=50)
    with pytest.raises(UserError, match='51 images drawn in a row'):
        dataset[0]


def test_a_bug_of_the_pipeline_is_not_taken_for_a_corrupt_file(root):

    def broken_transform(results):
        raise ZeroDivisionError

    dataset = CheckedImageFolder(data_root=str(root), pipeline=[LOAD[0], broken_transform])
    with pytest.raises(ZeroDivisionError):
        dataset[0]
    assert dataset.num_corrupt == 0


def test_workers_skip_and_the_main_process_keeps_its_own_count(root, tmp_path, monkeypatch):
    log_file = tmp_path / 'log.txt'

    def record(message, **_):
        with log_file.open('a') as f:  # several processes write
            f.write(message + '\n')

    monkeypatch.setattr('lm4ve.tasks.base.integrity.print_log', record)
    bad = break_images(root)
    dataset = folder(root)
    loader = DataLoader(dataset, batch_size=1, num_workers=2, collate_fn=lambda x: x)
    paths = [x['data_samples'].img_path for batch in loader for x in batch]
    assert len(paths) == len(dataset) and not set(paths) & set(bad)
    assert dataset.num_corrupt == 0
    text = log_file.read_text()
    assert 'of worker 0' in text and 'of worker 1' in text


def test_worker_error_names_the_file(root):
    path = write(root / CLASSES[0] / '0.JPEG', b'')
    loader = DataLoader(folder(root, on_corrupt='refuse'), num_workers=1, collate_fn=lambda x: x)
    batches = iter(loader)
    try:
        with pytest.raises(UserError, match=path):
            next(batches)
    finally:
        # Left to the garbage collector, it waits five seconds for the worker.
        batches._shutdown_workers()


# -------------------------------------------------------------------- testing
def test_test_mode_leaves_corrupt_images_out_and_says_how_many(root, log):
    bad = break_images(root)
    dataset = folder(root, test_mode=True)
    assert len(dataset) == 9 and dataset.num_corrupt == len(bad)
    assert set(dataset.corrupt_files) == set(bad)
    ((level, message),) = log
    assert level == logging.WARNING
    assert f'{len(bad)} of {9 + len(bad)} images' in message
    assert 'the other 9' in message
    labels = np.bincount([d['data_samples'].gt_label.item() for d in dataset])
    assert labels.tolist() == [3, 3, 3]


def test_validation_split_of_imagenet_is_scanned(root, log):
    bad = break_images(root)
    for split, count in (('train', 9 + len(bad)), ('val', 9)):
        (root.parent / split).symlink_to(root)
        dataset = CheckedImageNet(
            data_root=str(root.parent), split=split, metainfo=dict(classes=CLASSES)
        )
        assert len(dataset) == count
        assert dataset.test_mode == (split == 'val')


@pytest.mark.parametrize('with_label', [True, False])
@pytest.mark.parametrize('way', ['..', 'absolute', 'below'])
def test_a_list_does_not_lead_out_of_its_folder(root, way, with_label):
    name = {'..': '../x.jpg', 'absolute': '/etc/x.jpg', 'below': f'{CLASSES[0]}/../../x.jpg'}[way]
    write(root / 'list.txt', f'{CLASSES[0]}/0.JPEG 0\n{name} 0\n'.encode())
    if not with_label:
        write(root / 'list.txt', f'{CLASSES[0]}/0.JPEG\n{name}\n'.encode())
    with pytest.raises(UserError, match='1 image.s. outside of .*line 2.*Fix'):
        folder(root, ann_file='list.txt', with_label=with_label)


def test_a_list_may_hold_absolute_paths_without_a_folder(root):
    write(root / 'list.txt', f'{root}/{CLASSES[0]}/0.JPEG 0\n'.encode())
    assert len(folder('', ann_file=str(root / 'list.txt'), data_prefix='')) == 1


@pytest.mark.parametrize('start', ['http://localhost:9/', 'nfs://a/', 'b:http://localhost:9/'])
@pytest.mark.parametrize('prefix', ['images', ''])
def test_a_list_does_not_lead_to_the_network(root, prefix, start):
    write(root / 'images/a.JPEG', encode())
    write(root / 'list.txt', f'{root}/images/a.JPEG 0\n{start}x.jpg 0\n'.encode())
    options = dict(data_prefix=str(root / prefix) if prefix else '', test_mode=True)
    with pytest.raises(UserError, match='line 2.*Fix'):
        folder('', ann_file=str(root / 'list.txt'), **options)


@pytest.mark.parametrize('with_label', [True, False])
@pytest.mark.parametrize('content', ['', '\n \n'])
def test_a_list_of_nothing_is_refused(root, content, with_label):
    write(root / 'list.txt', content.encode())
    with pytest.raises(UserError, match='names no image.*Fix'):
        folder(root, ann_file='list.txt', with_label=with_label)


def test_annotation_file_is_scanned_too(root, log):
    write(root / 'zero.jpg', b'')
    write(root / 'list.txt', f'{CLASSES[0]}/0.JPEG 0\nzero.jpg 1\ngone.jpg 1\n'.encode())
    dataset = folder(root, ann_file='list.txt', test_mode=True)
    assert len(dataset) == 1 and dataset.num_corrupt == 2


def test_unverified_test_set_refuses_rather_than_replaces(root):
    path = write(root / CLASSES[0] / '0a.jpg', b'')
    dataset = folder(root, test_mode=True, verify=False)
    assert len(dataset) == 10
    with pytest.raises(UserError) as e:
        dataset[1]
    assert path in str(e.value) and 'verify=True' in str(e.value)


def test_verified_training_set_drops_corrupt_images(root, log):
    bad = break_images(root)
    dataset = folder(root, verify=True)
    assert len(dataset) == 9 and dataset.num_corrupt == len(bad)


def test_test_set_without_a_whole_image_is_refused(tmp_path):
    write(tmp_path / 'a' / '0.jpg', b'')
    with pytest.raises(UserError, match='1 of 1 images are corrupt'):
        folder(tmp_path, test_mode=True)


def test_check_does_not_depend_on_what_opencv_accepts(root, monkeypatch):
    # Many builds return a truncated JPEG with a gray lower part.
    whole = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(cv2, 'imdecode', lambda *a, **k: whole)
    write(root / CLASSES[0] / 'half.jpg', broken_files()['half.jpg'])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert folder(root, test_mode=True).num_corrupt == 1
