"""VideoMAE's batches: the partners of mixing and the noise of erased boxes, as released.

The formulas are those of ziqipang/LM4VisualEncoding e34e919, ``video_understanding``:
mixup.py:21-61 and 196-207, random_erasing.py:18-20.
"""

import math

import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.registry import init_default_scope
from scipy.stats import norm
from torch.distributions import Beta

from lm4ve.registry import MODELS, TRANSFORMS
from lm4ve.runner.config import read_config
from lm4ve.tasks.video import ReversedCutmix, ReversedMixup
from tests.helpers.tasks import FOLDERS

CLIPS, CLASSES = 4, 7
HEIGHT, WIDTH = 20, 28
#: Configs with VideoMAE's recipe for each data set.
CONFIGS = ('videomae-s_ssv2.py', 'videomae-b_llama_ssv2.py', 'videomae-s_llama_k400.py')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def clips_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (CLIPS, 1, 3, 2, HEIGHT, WIDTH)
    clips = torch.rand(shape, generator=generator, dtype=torch.float64)
    labels = torch.eye(CLASSES, dtype=torch.float64)[[5, 0, 3, 3]]
    return clips, labels


@pytest.mark.parametrize('seed', range(5))
def test_mixup_adds_the_reversed_batch(seed):
    clips, labels = clips_and_labels()
    torch.manual_seed(seed)
    share = Beta(0.8, 0.8).sample().double()
    torch.manual_seed(seed)
    mixed, mixed_labels = ReversedMixup(CLASSES, alpha=0.8).do_blending(clips, labels)
    for i in range(CLIPS):
        partner = CLIPS - 1 - i
        expected = clips[i] * share + clips[partner] * (1 - share)
        torch.testing.assert_close(mixed[i], expected)
        expected = labels[i] * share + labels[partner] * (1 - share)
        torch.testing.assert_close(mixed_labels[i], expected)


@pytest.mark.parametrize('seed', range(5))
def test_cutmix_takes_a_box_of_the_reversed_batch(seed):
    clips, labels = clips_and_labels()
    before = clips.clone()
    torch.manual_seed(seed)
    yl, yh, xl, xh = released_box(Beta(1.0, 1.0).sample())
    torch.manual_seed(seed)
    mixed, mixed_labels = ReversedCutmix(CLASSES, alpha=1.0).do_blending(clips, labels)
    kept = 1 - (yh - yl) * (xh - xl) / (HEIGHT * WIDTH)
    for i in range(CLIPS):
        partner = CLIPS - 1 - i
        expected = before[i].clone()
        expected[..., yl:yh, xl:xh] = before[partner][..., yl:yh, xl:xh]
        torch.testing.assert_close(mixed[i], expected, rtol=0, atol=0)
        expected = labels[i] * kept + labels[partner] * (1 - kept)
        # mmaction2's boxes are int64 tensors, whose quotient is a float32.
        torch.testing.assert_close(mixed_labels[i], expected, rtol=1e-6, atol=1e-6)


def released_box(share: torch.Tensor) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the release's box, with torch's next draws."""
    ratio = math.sqrt(1 - share)
    cut_height, cut_width = int(HEIGHT * ratio), int(WIDTH * ratio)
    x = torch.randint(WIDTH, (1,)).item()
    y = torch.randint(HEIGHT, (1,)).item()
    top, bottom = np.clip([y - cut_height // 2, y + cut_height // 2], 0, HEIGHT)
    left, right = np.clip([x - cut_width // 2, x + cut_width // 2], 0, WIDTH)
    return top, bottom, left, right


@pytest.mark.parametrize('name', CONFIGS)
def test_preprocessor_of_the_configs_mixes_with_the_reversed_batch(name):
    cfg = read_config(FOLDERS['video'] / name).model.data_preprocessor
    preprocessor = MODELS.build(cfg)
    kinds = {type(augment).__name__ for augment in preprocessor.blending.augments}
    assert kinds == {'ReversedMixup', 'ReversedCutmix'}
    for seed in range(6):
        torch.manual_seed(seed)
        np.random.seed(seed)
        data = dict(inputs=[], data_samples=[])
        for label in range(CLIPS):
            data['inputs'].append(torch.full((1, 3, 2, 16, 16), label).byte())
            data['data_samples'].append(ActionDataSample().set_gt_label(label))
        samples = preprocessor(data, training=True)['data_samples']
        for label, sample in enumerate(samples):
            mixed = sample.gt_label.nonzero().flatten().tolist()
            assert set(mixed) <= {label, CLIPS - 1 - label}


@pytest.mark.parametrize('name', CONFIGS)
def test_noise_of_erased_boxes_is_normal_after_normalization(name):
    """Compare with the normal distribution, in whole pixels and cut at 0 and 255."""
    cfg = read_config(FOLDERS['video'] / name)
    (erase,) = [
        each
        for each in cfg.train_dataloader.dataset.pipeline
        if each.type == 'RandomErasing'
    ]
    transform = TRANSFORMS.build(dict(erase, erase_prob=1.0, min_area_ratio=0.3))
    np.random.seed(0)
    gray = -1  # no pixel of the noise
    frames = [np.full((112, 112, 3), gray, dtype=np.int16) for _ in range(4)]
    erased = np.stack(transform(dict(imgs=frames))['imgs'])
    quantiles = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    preprocessor = cfg.model.data_preprocessor
    for channel in range(3):
        mean, std = preprocessor.mean[channel], preprocessor.std[channel]
        pixels = erased[..., channel]
        noise = (pixels[pixels != gray] - mean) / std
        ideal = (np.clip(np.trunc(mean + std * quantiles), 0, 255) - mean) / std
        bound = 5 / math.sqrt(noise.size)
        assert abs(noise.mean() - ideal.mean()) < bound
        assert abs(noise.std() - ideal.std()) < bound
