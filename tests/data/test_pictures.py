"""Every reader takes the same pictures, decodes them alike, and refuses what is too large."""

import logging
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmpretrain')
pytest.importorskip('pandas')

from mmcv.transforms import LoadImageFromFile

from lm4ve.data.image_files import MAX_PIXELS, decode_pixels, find_defect, read_pixels
from lm4ve.data.suffixes import IMAGE_SUFFIXES
from lm4ve.data.twins import group_twins, shrink
from lm4ve.demo_data.digits import digit_scans
from lm4ve.errors import TooLargeError, UserError
from lm4ve.study.pictures.data import read_data
from lm4ve.study.pictures.reading import read_picture
from lm4ve.study.pictures.rows import list_rows
from lm4ve.tasks import get_task
from lm4ve.tasks.base.inputs import find_inputs
from lm4ve.tasks.image import CheckedImageFolder, CheckedImageNet, ImageNetVariant
from lm4ve.tasks.video.datasets.video_files import read_frames
from tests.helpers.image.images import encode, fill, write
from tools.analysis.iou.mask_datasets import folder as folder_of_masks

LOAD = [dict(type='LoadImageFromFile')]
#: Pictures with these endings are in no folder.
OTHERS = ('.avif', '.heic', '.tga', '.txt')


def picture(seed=0, size=(48, 64)):
    """Return a smooth picture, as photographs are: noise would not survive a JPEG."""
    noise = np.random.default_rng(seed).normal(128, 400, (*size, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return Image.fromarray(smooth.clip(0, 255).astype(np.uint8))


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, Image.registered_extensions()[path.suffix.lower()], **options)
    return path


def chunk(name, content):
    check = struct.pack('>I', zlib.crc32(name + content))
    return struct.pack('>I', len(content)) + name + content + check


def with_notes(png):
    """Return a PNG with a profile that libpng warns of, and a text."""
    profile = chunk(b'iCCP', b'ICC Profile\0\0' + zlib.compress(b'x' * 300))
    text = chunk(b'tEXt', b'Title\0A cat')
    return png[:33] + profile + text + png[33:]


def huge_png():
    """Return a file with the header of a PNG of 14,000 x 14,000 pixels, and both ends."""
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 14_000, 14_000, 8, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


@pytest.fixture
def warned(monkeypatch):
    """The texts of warnings about what a folder holds."""
    texts = []

    def record(text, logger=None, level=logging.INFO):
        texts.append(text)

    monkeypatch.setattr('lm4ve.data.folder_listing.print_log', record)
    monkeypatch.setattr(
        'mmengine.logging.MMLogger.warning', lambda self, text: texts.append(text)
    )
    return texts


# ------------------------------------------------------------------------- one set
@pytest.fixture(scope='module')
def every_ending(tmp_path_factory):
    """A folder of classes with a picture of each ending, and files with others."""
    root = tmp_path_factory.mktemp('every')
    for number, suffix in enumerate(IMAGE_SUFFIXES):
        save(picture(number), root / f'n01498041/{number}{suffix}')
        save(picture(number + 50), root / f'n01531178/{number}{suffix.upper()}')
    for suffix in OTHERS:
        (root / f'n01498041/other{suffix}').write_bytes(b'x')
    return root


def data_set(kind):
    def paths(root):
        fields = dict(data_root=str(root), pipeline=LOAD, test_mode=False)
        classes = tuple(sorted(path.name for path in root.iterdir()))
        data = kind(metainfo=dict(classes=classes), **fields)
        return [data.path_at(i) for i in range(len(data))]

    return paths


def inputs_of(task):
    return lambda root: find_inputs(root, get_task(task)).sources


def iou_images(root):
    names = []
    for path in sorted((root).rglob('*')):
        mask = root.parent / 'iou/masks' / path.relative_to(root).with_suffix('.png')
        if path.is_file() and not mask.exists():
            save(Image.new('L', (64, 48), 1), mask)
    shutil.copytree(root, root.parent / 'iou/images', dirs_exist_ok=True)
    for read in folder_of_masks(root.parent / 'iou'):
        name, _, _ = read()
        names.append(root / Path(name).relative_to(root.parent / 'iou/images'))
    return names


READERS = {
    'try': lambda root: list_rows(str(root))[0]['item'],
    'CheckedImageFolder': data_set(CheckedImageFolder),
    'CheckedImageNet': data_set(CheckedImageNet),
    'inference': inputs_of('image'),
    'VQA': inputs_of('vqa'),
    'IoU': iou_images,
}


@pytest.mark.parametrize('reader', READERS)
def test_readers_take_the_same_files_and_name_the_others(reader, every_ending, warned):
    found = sorted(str(path) for path in READERS[reader](every_ending))
    expected = []
    for path in every_ending.rglob('*'):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            expected.append(str(path))
    assert found == sorted(expected)
    assert len(found) == 2 * len(IMAGE_SUFFIXES)
    if reader == 'try':  # a table names them
        _, left_out = list_rows(str(every_ending))
        assert len(left_out) == len(OTHERS)
        return
    (text,) = warned
    assert all(f'1 {suffix}' in text for suffix in OTHERS)


def test_image_net_variants_take_all_endings(tmp_path):
    fields = dict(variant='a', data_root='x', lazy_init=True)
    assert set(ImageNetVariant(**fields).extensions) == set(IMAGE_SUFFIXES)


def test_frames_of_a_video_are_of_any_ending(every_ending, warned):
    frames = read_frames(every_ending / 'n01498041')
    assert frames.shape == (len(IMAGE_SUFFIXES), 48, 64, 3)
    assert '1 .tga' in warned[-1]


# --------------------------------------------------------------------- one decoder
def test_every_ending_is_decoded_alike(every_ending):
    for path in every_ending.glob('*/*'):
        if path.suffix in OTHERS:
            continue
        expected = LoadImageFromFile()(dict(img_path=str(path)))['img']
        assert expected.shape == (48, 64, 3), path
        assert np.array_equal(read_pixels(path), expected), path
        assert np.array_equal(np.asarray(read_picture(path))[..., ::-1], expected)


def test_a_lab_tiff_is_decoded_alike(tmp_path):
    path = save(picture().convert('LAB'), tmp_path / 'lab.tif')
    expected = LoadImageFromFile()(dict(img_path=str(path)))['img']
    assert np.array_equal(np.asarray(read_picture(path))[..., ::-1], expected)


def test_what_is_no_pixel_of_a_png_changes_none_and_prints_nothing(tmp_path, capfd):
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = picture().quantize(16)
    gray16 = Image.fromarray(np.arange(0, 65536, 64, np.uint16).reshape(32, 32))
    files = [
        save(picture(), tmp_path / 'rgb.png', exif=turned),
        save(picture().convert('RGBA'), tmp_path / 'rgba.png'),
        save(palette, tmp_path / 'palette.png', transparency=3),
        save(gray16, tmp_path / 'deep.png', gamma=1),
        save(picture(), tmp_path / 'moving.png', append_images=[picture(1)]),
    ]
    for path in files:
        data = path.read_bytes()
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        path.write_bytes(with_notes(data))
        loaded = LoadImageFromFile()(dict(img_path=str(path)))['img']
        assert np.array_equal(loaded, expected), path
        assert np.array_equal(read_pixels(path), expected), path
    assert capfd.readouterr().err == ''
    half = files[0].read_bytes()[:200]
    assert decode_pixels(half) is None


# -------------------------------------------------------------------- one limit
def test_a_picture_is_refused_by_its_header(tmp_path):
    path = write(tmp_path / 'x.png', huge_png())
    for read in (find_defect, read_pixels, read_picture):
        with pytest.raises(TooLargeError, match=f"'{path}' .*max_pixels={MAX_PIXELS}"):
            read(path)
    for suffix in IMAGE_SUFFIXES:
        small = save(picture(), tmp_path / f'small{suffix}')
        assert find_defect(str(small), max_pixels=48 * 64) is None
        for decode in (False, True):
            with pytest.raises(TooLargeError, match='max_pixels=3071'):
                find_defect(str(small), decode, max_pixels=48 * 64 - 1)


def test_one_limit_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
    path = write(tmp_path / 'x.png', huge_png())
    assert find_defect(path, max_pixels=14_000**2) is None
    with pytest.raises(UserError, match='dataset.max_pixels=2000000000 must be'):
        CheckedImageFolder(data_root=str(tmp_path), max_pixels=2_000_000_000)


@pytest.mark.parametrize('test_mode', [True, False])
def test_a_large_picture_is_an_error_and_no_damage(test_mode, tmp_path):
    fill(tmp_path, ('a', 'b'))
    large = write(tmp_path / 'a/large.png', encode(64, suffix='.png'))
    fields = dict(data_root=str(tmp_path), pipeline=LOAD, on_corrupt='skip')
    with pytest.raises(TooLargeError, match=f"'{large}' .*max_pixels=2000"):
        data = CheckedImageFolder(**fields, test_mode=test_mode, max_pixels=2000)
        for index in range(len(data)):
            data[index]
    data = CheckedImageFolder(**fields, test_mode=test_mode, max_pixels=64 * 64)
    assert len([data[i] for i in range(len(data))]) == 7


# ---------------------------------------------------------------------------- twins
def groups_of(files):
    paths = list(files)
    small = [shrink(path.read_bytes()) for path in paths]
    return group_twins(small, lambda place: read_pixels(paths[place]))


def test_twins_in_other_formats_are_found(tmp_path):
    files = [save(picture(seed), tmp_path / f'{seed}.png') for seed in range(9)]
    options = {'.webp': dict(lossless=True), '.jpg': dict(quality=60)}
    for suffix in ('.jpg', '.webp', '.bmp', '.tif', '.gif'):
        twin = tmp_path / f'twin{suffix}'
        files.append(save(picture(4), twin, **options.get(suffix, {})))
    files.append(
        save(picture(5).resize((32, 24), Image.Resampling.BOX), tmp_path / 'h.png')
    )
    assert groups_of(files) == [*range(9), 4, 4, 4, 4, 4, 5]


def test_scanned_digits_are_no_twins_of_each_other():
    scans = np.concatenate([images for images, _ in digit_scans().values()])
    pixels = []
    for scan in scans:
        levels = np.minimum(16 * scan, 255).astype(np.uint8)
        pixels.append(cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR))
    small = [shrink(cv2.imencode('.png', one)[1].tobytes()) for one in pixels]
    assert group_twins(small, pixels.__getitem__) == list(range(len(scans)))


def test_pictures_of_one_color_are_twins_only_if_equal(tmp_path):
    levels = [7, 8, 9, 8]
    files = []
    for number, level in enumerate(levels):
        plain = Image.new('RGB', (20, 20), (level, level, level))
        files.append(save(plain, tmp_path / f'{number}.png'))
    assert groups_of(files) == [0, 1, 2, 1]


def test_pictures_that_differ_in_noise_alone_are_read_once_each():
    rng = np.random.default_rng(0)
    water = [rng.integers(40, 60, (64, 64, 3), np.uint8) for _ in range(20)]
    small = [shrink(cv2.imencode('.png', one)[1].tobytes()) for one in water]
    read = []

    def pixels_of(place):
        read.append(place)
        return water[place]

    assert group_twins(small, pixels_of) == list(range(20))
    assert sorted(read) == list(range(20))


def test_twins_stand_on_one_side_of_a_split(tmp_path, warned):
    for label in range(2):
        for number in range(20):
            image = picture(100 * label + number)
            save(image, tmp_path / f'{label}/{number}.png')
            save(image, tmp_path / f'{label}/twin{number}.webp', lossless=True)
            save(image, tmp_path / f'{label}/other{number}.jpg', quality=80)
    data = read_data(str(tmp_path))
    assert not warned
    assert len(data) == 120
    sides = {}
    for split, indices in data.splits.items():
        for index in indices:
            item = data.items[index]
            number = ''.join(letter for letter in item.stem if letter.isdigit())
            sides.setdefault((item.parent.name, number), set()).add(split)
    assert len(sides) == 40
    assert all(len(splits) == 1 for splits in sides.values())
