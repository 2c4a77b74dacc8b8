"""Compiled kernels make the installed Pillow's pixels, alone and in the configs' pipelines."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from lm4ve.compat import for_pillow
from lm4ve.runner.config import read_config
from tests.helpers.tasks import ROOT

for package in ('numba', 'mmpretrain', 'mmaction'):
    pytest.importorskip(package)
import mmcv  # noqa: E402
from mmaction.datasets.transforms import RandomResizedCrop  # noqa: E402
from PIL import Image  # noqa: E402
from timm.data.auto_augment import rand_augment_transform  # noqa: E402

from lm4ve.tasks.video.transforms import ClipRandAugment  # noqa: E402
from tests.tasks.video.videos import write_noise  # noqa: E402

CODES = dict(bilinear=Image.BILINEAR, bicubic=Image.BICUBIC)


def noise(rng, *shape: int) -> np.ndarray:
    """Return noise, which overshoots, or a part of 0 and 255, which is clipped."""
    values = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return values if rng.random() < 0.7 else np.where(values > 127, 255, 0).astype(np.uint8)


def views(image: np.ndarray) -> list[np.ndarray]:
    """Return what a pipeline may hand over: a crop, a flip, other strides, read-only memory."""
    fixed = image.copy()
    fixed.flags.writeable = False
    height, width = (n // 4 for n in image.shape[:2])
    return [image[height:, width:], image[:, ::-1, ::-1], image.swapaxes(0, 1), fixed]


def sizes(rng) -> list[int]:
    """Return height and width, before and after; some are one pixel, some huge ratios."""
    return [int(n) for n in rng.choice([1, 2, 7, *rng.integers(1, 400, 9)], 4)]


def test_sizes_views_and_noise_equal_pillow():
    rng = np.random.default_rng(0)
    for i in range(200):
        *shape, new_height, new_width = sizes(rng)
        image = views(noise(rng, *shape))[i % 4]
        name = list(CODES)[i % 3 > 0]
        size = new_width, new_height
        ours = for_pillow.resize(image, size, name)
        picture = Image.fromarray(np.ascontiguousarray(image))
        if ours is not None:
            assert np.array_equal(ours, picture.resize(size, CODES[name])), (shape, size, name)
            assert ours.flags.writeable and not np.shares_memory(ours, image)
        # Before 13.0 the horizontal pass was the first, but for strips.
        old = for_pillow.resize(image, size, name, since_13=False)
        if image.shape[0] > 100 * image.shape[1]:
            assert old is None
        else:
            wide = picture.resize((new_width, image.shape[0]), CODES[name])
            assert ours is not None and np.array_equal(old, wide.resize(size, CODES[name]))


def test_other_pictures_are_left_to_pillow():
    rng = np.random.default_rng(0)
    image = noise(rng, 9, 11)
    for other in (image[..., 0], image[..., :1], image.astype(np.float32), image[:0]):
        assert for_pillow.resize(other, (4, 5), 'bicubic') is None
    assert for_pillow.resize(image, (4, 5), 'lanczos') is None
    assert for_pillow.resize(image, (0, 5), 'bicubic') is None
    for name, other in (('bicubic', image[..., 0]), ('lanczos', image), ('bicubic', image)):
        ours, *scales = mmcv.imresize(other, (4, 5), True, name, backend='pillow')
        code = getattr(Image, name.upper())
        assert np.array_equal(ours, Image.fromarray(other).resize((4, 5), code))
        assert scales == [4 / 11, 5 / 9]


def test_moved_clips_equal_pillow_in_any_box():
    rng = np.random.default_rng(0)
    for i in range(60):
        height, width = (int(n) for n in rng.integers(1, 60, 2))
        clip = noise(rng, 1 + i % 5, height, width)[:, :: 1 + i % 2]
        height = clip.shape[1]
        matrix = np.array([1, 0, 0, 0, 1, 0.0])
        changed = rng.choice(6, int(rng.integers(0, 7)), replace=False)
        matrix[changed] += rng.normal(size=len(changed)) * np.array([1, 1, 9, 1, 1, 9])[changed]
        fill = rng.integers(0, 256, 3).tolist()
        left, right = sorted(rng.integers(0, width + 1, 2))
        top, bottom = sorted(rng.integers(0, height + 1, 2))
        ours = for_pillow.move(clip, matrix, fill, (left, top, right, bottom))
        options = dict(resample=Image.BICUBIC, fillcolor=tuple(fill))
        for frame, moved in zip(clip, ours, strict=True):
            whole = Image.fromarray(np.ascontiguousarray(frame)).transform(
                (width, height), Image.AFFINE, matrix.tolist(), **options
            )
            assert np.array_equal(moved, np.asarray(whole)[top:bottom, left:right])


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)


@pytest.mark.parametrize('compiled', [True, False])
@pytest.mark.parametrize('config', ['rand-m7-n4-mstd0.5-inc1', 'rand-m9-n3-p0.9-mstd1-t3a'])
def test_clips_are_augmented_as_frame_by_frame(config, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(for_pillow, 'kernels', lambda: None)
    crop = RandomResizedCrop()
    with DefaultScope.overwrite_default_scope('mmaction'):
        ours = ClipRandAugment(config, crop=dict(type='RandomResizedCrop'))
    for i in range(12):
        clip = noise(np.random.default_rng(i), 3, 40, 52)
        options = dict(translate_const=18, img_mean=(124, 116, 104), interpolation=Image.BICUBIC)
        frames = []
        for frame in clip:
            seed(i)
            augment = rand_augment_transform(config, options)
            frames.append(np.asarray(augment(Image.fromarray(frame))))
        there = crop(dict(imgs=frames, img_shape=(40, 52))), random.random(), np.random.rand()
        seed(i)
        here = ours(dict(imgs=[*clip], img_shape=(40, 52))), random.random(), np.random.rand()
        assert here[1:] == there[1:] and here[0].keys() == there[0].keys()
        assert np.array_equal(here[0]['imgs'], there[0]['imgs'])


@pytest.mark.parametrize(
    'config, split',
    [
        ('lm4ve/vit-s_llama_in1k', 'train'),
        ('lm4ve/vit-s_llama_in1k', 'test'),
        ('video/videomae-s_llama_ssv2', 'train'),
        ('video/videomae-s_llama_k400', 'train'),
    ],
)
def test_samples_are_the_same_without_numba(config, split, tmp_path, monkeypatch):
    cfg = read_config(ROOT / f'configs/{config}.py')
    image = noise(np.random.default_rng(0), 300, 400)
    mmcv.imwrite(image, str(tmp_path / 'image.png'))
    video = write_noise(tmp_path / 'video.mp4', frames=24, size=(90, 120))
    sample = dict(img_path=str(tmp_path / 'image.png'), gt_label=1, filename=str(video), label=1)
    sample |= dict(start_index=0, modality='RGB')
    drawn, asked = {True: [], False: []}, []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        pipeline = Compose(cfg[f'{split}_dataloader'].dataset.pipeline)
        for compiled, found in drawn.items():
            if not compiled:
                monkeypatch.setattr(for_pillow, 'kernels', lambda: asked.append(1))
            for i in range(6):
                seed(i)
                found.append(np.asarray(pipeline(dict(sample))['inputs']))
    assert asked and all(map(np.array_equal, drawn[True], drawn[False]))
    assert split == 'test' or not np.array_equal(*drawn[True][:2])


def test_pillow_resizes_where_kernels_differ_or_are_missing(monkeypatch):
    find = for_pillow.kernels.__wrapped__
    assert find() is for_pillow.kernels() is not None
    with monkeypatch.context() as patch:
        patch.setattr(for_pillow, 'SINCE_13', not for_pillow.SINCE_13)
        assert find() is None
    monkeypatch.delitem(sys.modules, 'lm4ve.compat.pillow_kernels')
    monkeypatch.setitem(sys.modules, 'numba', None)
    assert find() is None


def test_a_kernel_compiles_where_nothing_can_be_cached():
    from numba import types

    from lm4ve.compat.pillow_kernels import _compiled

    scope = {}
    exec('def double(x): return 2 * x', scope)  # of no file: numba refuses to cache it
    assert _compiled(types.intp(types.intp))(scope['double'])(4) == 8


def test_threads_resize_as_one_does():
    images = [noise(np.random.default_rng(i), 90, 70 + i) for i in range(32)]

    def resize(image: np.ndarray) -> np.ndarray:
        return for_pillow.resize(image, (33, 44), 'bicubic')

    with ThreadPoolExecutor(8) as pool:
        assert all(map(np.array_equal, pool.map(resize, images), map(resize, images)))
