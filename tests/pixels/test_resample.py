"""Compiled kernels make the installed Pillow's pixels, alone and in the configs' pipelines."""

import platform
import random
import sys
from unittest.mock import Mock

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.runner import set_random_seed

from lm4ve.pixels import resample
from lm4ve.runner.config import read_config
from tests.helpers.tasks import ROOT

for package in ('numba', 'mmpretrain', 'mmaction'):
    pytest.importorskip(package)
import mmcv  # noqa: E402
from PIL import Image  # noqa: E402
from timm.data.auto_augment import rand_augment_transform  # noqa: E402

from lm4ve.tasks.video.transforms.rand_augment import ClipRandAugment  # noqa: E402
from tests.helpers.video.videos import write_noise  # noqa: E402

pytestmark = pytest.mark.skipif(
    platform.machine() != 'x86_64', reason='kernels are for x86-64'
)
CODES = dict(bilinear=Image.BILINEAR, bicubic=Image.BICUBIC)


def noise(rng, *shape: int) -> np.ndarray:
    """Return noise, which overshoots, or a part of 0 and 255, which is clipped."""
    values = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    if rng.random() < 0.7:
        return values
    return np.where(values > 127, 255, 0).astype(np.uint8)


def views(image: np.ndarray) -> list[np.ndarray]:
    """Return what a pipeline may hand over of a picture."""
    crop = image[image.shape[0] // 4 :, image.shape[1] // 4 :]
    flip = image[:, ::-1, ::-1]
    other_strides = image.swapaxes(0, 1)
    read_only = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    return [crop, flip, other_strides, read_only]


def test_sizes_views_and_noise_equal_pillow():
    rng = np.random.default_rng(0)
    for i in range(200):
        # Some are one pixel, some of huge ratios.
        lengths = [1, 2, 7, *rng.integers(1, 400, 9)]
        *shape, height, width = map(int, rng.choice(lengths, 4))
        image = views(noise(rng, *shape))[i % 4]
        name = 'bilinear' if i % 3 == 0 else 'bicubic'
        ours = resample.resize(image, (width, height), name)
        old = resample.resize(image, (width, height), name, since_13=False)
        picture = Image.fromarray(np.ascontiguousarray(image))
        is_strip = len(image) > 100 * image.shape[1]
        if ours is None:
            assert is_strip
        else:
            expected = picture.resize((width, height), CODES[name])
            assert np.array_equal(ours, expected), (shape, i)
            assert ours.flags.writeable and not np.shares_memory(ours, image)
        if old is None:
            assert is_strip
        else:
            assert not is_strip
            # Before 13.0 the horizontal pass was always the first.
            wide = picture.resize((width, len(image)), CODES[name])
            assert np.array_equal(old, wide.resize((width, height), CODES[name]))


def test_other_pictures_are_left_to_pillow():
    image = noise(np.random.default_rng(0), 9, 11)
    gray = image[..., 0]
    for other in (gray, image[..., :1], image.astype(np.float32), image[:0]):
        assert resample.resize(other, (4, 5), 'bicubic') is None
    for name, other in (('bicubic', gray), ('lanczos', image), ('bicubic', image)):
        ours, *scales = mmcv.imresize(other, (4, 5), True, name, backend='pillow')
        picture = Image.fromarray(other).resize((4, 5), getattr(Image, name.upper()))
        assert np.array_equal(ours, picture)
        assert scales == [4 / 11, 5 / 9]


def test_moved_clips_equal_pillow_in_any_box():
    rng = np.random.default_rng(0)
    for i in range(60):
        count = 1 + i % 5
        step = 1 + i % 2
        clip = noise(rng, count, *rng.integers(1, 60, 2))[:, ::step]
        height, width = clip.shape[1:3]
        # Any of the six numbers may be the identity's, as in shears and shifts.
        changes = rng.normal(size=6) * [1, 1, 9, 1, 1, 9]
        is_changed = rng.random(6) < 0.5
        matrix = (changes * is_changed + [1, 0, 0, 0, 1, 0]).tolist()
        fill = tuple(rng.integers(0, 256, 3).tolist())
        left, right = sorted(rng.integers(0, width + 1, 2))
        top, bottom = sorted(rng.integers(0, height + 1, 2))
        ours = resample.transform(clip, matrix, fill, (left, top, right, bottom))
        for frame, moved in zip(clip, ours, strict=True):
            whole = Image.fromarray(np.ascontiguousarray(frame)).transform(
                (width, height), Image.AFFINE, matrix, Image.BICUBIC, fillcolor=fill
            )
            assert np.array_equal(moved, np.asarray(whole)[top:bottom, left:right])


@pytest.mark.parametrize(
    'config', ['rand-m7-n4-mstd0.5-inc1', 'rand-m9-n3-p0.9-mstd1-t3a']
)
def test_clips_are_augmented_as_frame_by_frame(config):
    with DefaultScope.overwrite_default_scope('mmaction'):
        ours = ClipRandAugment(config, crop=dict(type='RandomResizedCrop'))
    options = dict(
        translate_const=18, img_mean=(124, 116, 104), interpolation=Image.BICUBIC
    )
    for i in range(12):
        clip = noise(np.random.default_rng(i), 3, 40, 52)
        frames = []
        for frame in clip:
            set_random_seed(i)
            augment = rand_augment_transform(config, options)
            frames.append(np.asarray(augment(Image.fromarray(frame))))
        expected = ours.crop(dict(imgs=frames, img_shape=(40, 52)))
        next_numbers = (random.random(), np.random.rand())
        set_random_seed(i)
        result = ours(dict(imgs=list(clip), img_shape=(40, 52)))
        assert (random.random(), np.random.rand()) == next_numbers
        assert result.keys() == expected.keys()
        assert np.array_equal(result['imgs'], expected['imgs'])


def run(pipeline: Compose, sample: dict) -> list[np.ndarray]:
    """Load a sample with some seeds."""
    inputs = []
    for seed in range(4):
        set_random_seed(seed)
        inputs.append(np.asarray(pipeline(dict(sample))['inputs']))
    return inputs


@pytest.mark.parametrize(
    'config', ['lm4ve/vit-s_llama_in1k', 'video/videomae-s_llama_ssv2']
)
def test_samples_are_the_same_without_numba(config, tmp_path, monkeypatch):
    cfg = read_config(ROOT / f'configs/{config}.py')
    image = str(tmp_path / 'image.png')
    mmcv.imwrite(noise(np.random.default_rng(0), 300, 400), image)
    video = str(write_noise(tmp_path / 'video.mp4', frames=24, size=(90, 120)))
    sample = dict(
        img_path=image, filename=video, label=1, start_index=0, modality='RGB'
    )
    find_kernels = Mock(return_value=None)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            pipeline = Compose(loader.dataset.pipeline)
            fast = run(pipeline, sample)
            with monkeypatch.context() as patch:
                patch.setattr(resample, 'kernels', find_kernels)
                slow = run(pipeline, sample)
            assert all(map(np.array_equal, fast, slow))
    assert find_kernels.called


def test_pillow_resizes_where_kernels_differ_or_are_missing(monkeypatch):
    find = resample.kernels.__wrapped__
    assert find() is resample.kernels() is not None
    with monkeypatch.context() as patch:
        patch.setattr(resample, 'SINCE_13', not resample.SINCE_13)
        assert find() is None
    monkeypatch.delitem(sys.modules, 'lm4ve.pixels.kernels')
    monkeypatch.setitem(sys.modules, 'numba', None)
    assert find() is None


def test_a_kernel_compiles_where_nothing_can_be_cached():
    from lm4ve.pixels.kernels import _compiled

    scope = {}
    exec('def double(x): return 2 * x', scope)  # of no file: numba refuses to cache it
    assert _compiled('int64(int64)')(scope['double'])(4) == 8
