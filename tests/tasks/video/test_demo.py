"""The moving digits: real files, classes that need time; inference on one video."""

import av
import numpy as np
import pytest

pytest.importorskip('mmaction')

from mmaction.registry import TRANSFORMS
from mmengine.config import Config

from lm4ve.tasks.video.demo import moving_digits as md
from tests.helpers.tasks import CONFIGS

SMALL = dict(train=16, val=8, test=8)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return md.write_moving_digits(
        tmp_path_factory.mktemp('data') / 'moving-digits', SMALL
    )


def test_videos_of_the_lists_are_the_clips(folder):
    for split, count in SMALL.items():
        lines = (folder / f'{split}.txt').read_text().splitlines()
        for line, (frames, label) in zip(lines, md.clips(split, count), strict=True):
            name, number = line.split()
            assert int(number) == label
            with av.open(str(folder / name)) as video:
                read = [f.to_ndarray(format='gray') for f in video.decode(video=0)]
            # Lossy, but the same pictures.
            assert np.abs(np.stack(read) - frames.astype(float)).mean() < 8


def test_a_seed_cuts_the_training_clips_by_their_scans(folder):
    def files(split, split_seed=None):
        dataset = md.MovingDigitsDataset(
            split, str(folder), SMALL, split_seed, pipeline=[], verify=False
        )
        return [info['filename'] for info in dataset.load_data_list()]

    fit, val = files('fit', 4), files('val', 4)
    assert sorted(fit + val) == files('train')
    assert val and val != files('val', 5)
    assert all('/val/' in name for name in files('val'))
    scans = [scan for scan, _, _ in md._plan_clips('train', SMALL['train'])]
    scan_of = dict(zip(files('train'), scans, strict=True))
    assert not {scan_of[name] for name in fit} & {scan_of[name] for name in val}


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
def test_a_clip_has_all_frames_in_their_order(mode):
    cfg = Config.fromfile(CONFIGS / '_base_/video/moving-digits.py')
    sampler = TRANSFORMS.build(cfg[f'{mode}_dataloader'].dataset.pipeline[1])
    found = sampler(dict(total_frames=md.FRAMES, start_index=0))
    assert found['frame_inds'].tolist() == list(range(md.FRAMES))


def test_directions_are_those_of_their_names():
    # Name of a direction -> the axis that it moves along, and the sign of its steps.
    directions = dict(left=(0, -1), right=(0, 1), up=(1, -1), down=(1, 1))
    angles = np.exp(2j * np.pi * np.arange(md.SIZE) / md.SIZE)
    for frames, label in md.clips('test', 64):
        name = md.CLASSES[label]
        mass = frames.sum((1, 2), dtype=float)
        # The center of mass on a torus, in pixels.
        sums = np.stack(
            [(frames.sum(axis) * angles).sum(-1) for axis in (1, 2)], axis=-1
        )
        shift = np.angle(sums[1] / sums[0]) / (2 * np.pi) * md.SIZE
        if name in directions:
            along, sign = directions[name]
            assert 1 < sign * shift[along] < 5
            assert abs(shift[1 - along]) < 0.5
        elif name in ('growing', 'shrinking'):
            # Of eight frames one or two jumps lead back into the range.
            assert np.median(np.diff(mass)) * (1 if name == 'growing' else -1) > 0
