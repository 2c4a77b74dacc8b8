"""Masks of every layout and kind are read as foreground, background and ignored."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lm4ve.analysis.iou.mask_datasets import IMAGENET_S_50, ImageNetS, MaskFolder
from lm4ve.analysis.iou.pseudo_masks import IGNORED
from lm4ve.errors import UserError


def write_imagenet_s(root: Path, ids: np.ndarray, name=IMAGENET_S_50[2]) -> Path:
    for part, suffix in (('validation', 'JPEG'), ('validation-segmentation', 'png')):
        (root / part / name).mkdir(parents=True, exist_ok=True)
        rgb = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
        Image.fromarray(rgb).save(root / part / name / f'a.{suffix}')
    return root


def test_imagenet_s_foreground_is_the_images_own_class(tmp_path):
    ids = np.array([[3, 0, 1000], [3, 7, 256 + 3], [0, 3, 1000]])
    data = ImageNetS(write_imagenet_s(tmp_path, ids))
    assert len(data) == 1
    name, sample, mask = data[0]
    assert name == sample['img_path'] and name.endswith('n01531178/a.JPEG')
    i = IGNORED
    assert mask.tolist() == [[1, 0, i], [1, 0, 0], [0, 1, i]]


def test_larger_imagenet_s_needs_its_list_of_classes(tmp_path):
    write_imagenet_s(tmp_path, np.full((2, 2), 300), 'n00000300')
    with pytest.raises(UserError, match="class 'n00000300', which is not in"):
        ImageNetS(tmp_path)
    names = [f'n{i:08d}' for i in range(1, 400)]
    (tmp_path / 'ImageNetS_categories_im399.txt').write_text('\n'.join(names))
    assert (ImageNetS(tmp_path)[0][2] == 1).all()


def masks_of(mode: str) -> Image.Image:
    values = np.array([[0, 1], [255, 7]], np.uint8)
    if mode == 'P':
        image = Image.fromarray(values)
        # Colours that would mislead: 0 is white, all else black.
        image.putpalette([255] * 3 + [0] * 3 * 255)
        return image
    if mode in ('RGB', 'RGBA'):
        opaque = np.full_like(values, 255)
        channels = [0 * values, values, 0 * values, opaque]
        return Image.fromarray(np.stack(channels[: len(mode)], -1))
    if mode == 'LA':
        return Image.fromarray(np.stack([values, np.full_like(values, 255)], -1))
    return (
        Image.fromarray(values).convert(mode)
        if mode != 'I;16'
        else (Image.fromarray(values.astype(np.uint16)))
    )


@pytest.mark.parametrize('mode', ['P', 'L', 'LA', '1', 'I', 'I;16', 'RGB', 'RGBA'])
def test_masks_of_any_kind_are_foreground_above_0(tmp_path, mode):
    for name in ('images', 'masks'):
        (tmp_path / name / 'deep').mkdir(parents=True)
    Image.new('RGB', (2, 2)).save(tmp_path / 'images/deep/x.jpg')
    suffix = 'tif' if mode == 'I' else 'png'  # Pillow writes no PNG of 32 bits
    masks_of(mode).save(tmp_path / f'masks/deep/x.{suffix}')
    # '1' holds what is above 127.
    expected = [[0, 0], [1, 0]] if mode == '1' else [[0, 1], [1, 1]]
    assert Image.open(next((tmp_path / 'masks/deep').iterdir())).mode == mode
    assert MaskFolder(tmp_path)[0][2].tolist() == expected
    if mode in ('P', 'L'):
        expected[1][0] = IGNORED
        assert MaskFolder(tmp_path, ignored=255)[0][2].tolist() == expected


def test_a_damaged_mask_is_refused_without_its_bytes(tmp_path):
    for name in ('images', 'masks'):
        (tmp_path / name).mkdir()
    Image.new('RGB', (2, 2)).save(tmp_path / 'images/x.jpg')
    path = tmp_path / 'masks/x.png'
    Image.new('L', (2, 2)).save(path)
    path.write_bytes(path.read_bytes().replace(b'IDAT', b'\0\0\0\xfd'))
    with pytest.raises(UserError, match=r"x.png' is not an image that can be read") as e:
        MaskFolder(tmp_path)[0]
    assert 'xfd' not in str(e.value)


def test_imagenet_s_masks_must_be_rgb(tmp_path):
    write_imagenet_s(tmp_path, np.full((2, 2), 3))
    (path,) = tmp_path.glob('validation-segmentation/*/*.png')
    Image.fromarray(np.full((2, 2), 3, np.uint8)).save(path)
    with pytest.raises(UserError, match="='L' must be one of RGB"):
        ImageNetS(tmp_path)[0]
