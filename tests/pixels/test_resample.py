"""Compiled kernels make the installed Pillow's pixels, alone and in the configs' pipelines."""

import platform
import random
import sys

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

from lm4ve.tasks.video.transforms import ClipRandAugment  # noqa: E402
from tests.helpers.video.videos import write_noise  # noqa: E402

pytestmark = pytest.mark.skipif(
    platform.machine() != 'x86_64', reason='kernels are for x86-64'
)
CODES = dict(bilinear=Image.BILINEAR, bicubic=Image.BICUBIC)


def noise(rng, *shape: int) -> np.ndarray:
    """Return noise, which overshoots, or a part of 0 and 255, which is clipped."""
    values = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return (
        values
        if rng.random() < 0.7
        else np.where(values > 127, 255, 0).astype(np.uint8)
    )


def views(image: np.ndarray) -> list[np.ndarray]:
    """Return what a pipeline may hand over: a crop, a flip, other strides, read-only memory."""
    fixed = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    crop = image[image.shape[0] // 4 :, image.shape[1] // 4 :]
    return [crop, image[:, ::-1, ::-1], image.swapaxes(0, 1), fixed]


def test_sizes_views_and_noise_equal_pillow():
    rng = np.random.default_rng(0)
    for i in range(200):
        # Some are one pixel, some of huge ratios.
        *shape, height, width = (
            int(n) for n in rng.choice([1, 2, 7, *rng.integers(1, 400, 9)], 4)
        )
        image = views(noise(rng, *shape))[i % 4]
        name, code = list(CODES.items())[i % 3 > 0]
        ours = resample.resize(image, (width, height), name)
        old = resample.resize(image, (width, height), name, since_13=False)
        picture = Image.fromarray(np.ascontiguousarray(image))
        if ours is not None:
            assert np.array_equal(ours, picture.resize((width, height), code)), (
                shape,
                i,
            )
            assert ours.flags.writeable and not np.shares_memory(ours, image)
        if (
            old is not None
        ):  # before 13.0 the horizontal pass was the first, but for strips
            wide = picture.resize((width, len(image)), code)
            assert np.array_equal(old, wide.resize((width, height), code))
        assert (old is None) == (len(image) > 100 * image.shape[1]) >= (ours is None)


def test_other_pictures_are_left_to_pillow():
    image = noise(np.random.default_rng(0), 9, 11)
    for other in (image[..., 0], image[..., :1], image.astype(np.float32), image[:0]):
        assert resample.resize(other, (4, 5), 'bicubic') is None
    for name, other in (
        ('bicubic', image[..., 0]),
        ('lanczos', image),
        ('bicubic', image),
    ):
        ours, *scales = mmcv.imresize(other, (4, 5), True, name, backend='pillow')
        picture = Image.fromarray(other).resize((4, 5), getattr(Image, name.upper()))
        assert np.array_equal(ours, picture) and scales == [4 / 11, 5 / 9]


def test_moved_clips_equal_pillow_in_any_box():
    rng = np.random.default_rng(0)
    for i in range(60):
        clip = noise(rng, 1 + i % 5, *rng.integers(1, 60, 2))[:, :: 1 + i % 2]
        height, width = clip.shape[1:3]
        # Any of the six numbers may be the identity's, as in shears and shifts.
        matrix = rng.normal(size=6) * [1, 1, 9, 1, 1, 9] * (rng.random(6) < 0.5)
        matrix = (matrix + [1, 0, 0, 0, 1, 0]).tolist()
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
        clip, frames = noise(np.random.default_rng(i), 3, 40, 52), []
        for frame in clip:
            set_random_seed(i)
            frames += [
                np.asarray(
                    rand_augment_transform(config, options)(Image.fromarray(frame))
                )
            ]
        there = (
            ours.crop(dict(imgs=frames, img_shape=(40, 52))),
            random.random(),
            np.random.rand(),
        )
        set_random_seed(i)
        here = (
            ours(dict(imgs=[*clip], img_shape=(40, 52))),
            random.random(),
            np.random.rand(),
        )
        assert here[1:] == there[1:] and here[0].keys() == there[0].keys()
        assert np.array_equal(here[0]['imgs'], there[0]['imgs'])


@pytest.mark.parametrize(
    'config', ['lm4ve/vit-s_llama_in1k', 'video/videomae-s_llama_ssv2']
)
def test_samples_are_the_same_without_numba(config, tmp_path, monkeypatch):
    cfg = read_config(ROOT / f'configs/{config}.py')
    image, asked = str(tmp_path / 'image.png'), []
    mmcv.imwrite(noise(np.random.default_rng(0), 300, 400), image)
    video = str(write_noise(tmp_path / 'video.mp4', frames=24, size=(90, 120)))
    sample = dict(
        img_path=image, filename=video, label=1, start_index=0, modality='RGB'
    )
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            pipeline, found = Compose(loader.dataset.pipeline), []
            for i in range(8):
                if i == 4:
                    monkeypatch.setattr(resample, 'kernels', lambda: asked.append(1))
                set_random_seed(i % 4)
                found.append(np.asarray(pipeline(dict(sample))['inputs']))
            monkeypatch.undo()
            assert all(map(np.array_equal, found[:4], found[4:]))
    assert asked


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
