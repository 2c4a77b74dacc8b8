"""The views of a Something-Something test are those of VideoMAE's release."""

from fractions import Fraction
from math import floor

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmaction')
from mmaction.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from lm4ve.errors import UserError
from lm4ve.tasks.video.task import decoded_by
from tests.helpers.tasks import FOLDERS

SIZE = 224


def released_frames(length: int, num_segment: int = 16) -> list[list[int]]:
    """Frames of both clips by ``ssv2.py``, lines 232 to 239 and 154, in exact numbers."""
    tick = Fraction(length, num_segment)
    both = [floor(tick / 2 + tick * x) for x in range(num_segment)]
    both += [floor(tick * x) for x in range(num_segment)]
    both.sort()
    return [both[0::2], both[1::2]]


def released_crops(frames: np.ndarray) -> list[np.ndarray]:
    """Crops ``[T, 224, 224, 3]`` by ``functional.py``, lines 28 to 84, and ``ssv2.py``."""
    height, width = frames.shape[1:3]
    if width < height:
        new = (SIZE, int(SIZE * height / width))
    else:
        new = (int(SIZE * width / height), SIZE)
    resized = np.stack([cv2.resize(frame, new) for frame in frames])
    step = (max(resized.shape[1:3]) - SIZE) / 2
    crops = []
    for number in range(3):
        start = int(number * step)
        if resized.shape[1] >= resized.shape[2]:
            crops.append(resized[:, start : start + SIZE])
        else:
            crops.append(resized[:, :, start : start + SIZE])
    return crops


def clips_of_test(frames: np.ndarray) -> torch.Tensor:
    """Return the clips ``[6, 3, 16, 224, 224]`` of the shipped test pipeline."""
    cfg = Config.fromfile(FOLDERS['video'] / 'videomae-s_llama_ssv2.py')
    pipeline = decoded_by('Array', cfg.test_dataloader.dataset.pipeline)
    results = dict(array=frames, total_frames=len(frames), label=0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return Compose(pipeline)(dict(results, start_index=0, modality='RGB'))['inputs']


@pytest.mark.parametrize('start', [0, 1])
def test_each_clip_has_the_released_frames_at_every_length(start):
    views = TRANSFORMS.build(dict(type='lm4ve.UniformViews', clip_len=16, num_clips=2))
    for length in range(1, 400):
        results = views.transform(dict(total_frames=length, start_index=start))
        found = (results['frame_inds'] - start).reshape(2, 16).tolist()
        assert found == released_frames(length), length


# 320 x 240 has an odd rest beside the crops, if rounded up; 240 x 427 stands upright.
@pytest.mark.parametrize('size', [(240, 427), (427, 240), (240, 320), (224, 301)])
def test_a_test_sees_the_released_pixels(size):
    video = np.random.default_rng(0).integers(0, 256, (20, *size, 3), np.uint8)
    expected = []
    for crop in range(3):
        for clip in released_frames(len(video)):
            expected.append(released_crops(video[clip])[crop])
    expected = torch.from_numpy(np.stack(expected)).permute(0, 4, 1, 2, 3)
    assert torch.equal(clips_of_test(video), expected)


# Crops of larger frames would lie on the diagonal, and leave the rest out.
@pytest.mark.parametrize('size', [(SIZE, 200), (240, 320)])
def test_frames_of_another_short_side_than_the_crops_are_refused(size):
    crop = TRANSFORMS.build(dict(type='lm4ve.ThreeCrop', crop_size=SIZE))
    frames = [np.zeros((*size, 3), np.uint8)]
    with pytest.raises(UserError, match='224'):
        crop.transform(dict(imgs=frames))
