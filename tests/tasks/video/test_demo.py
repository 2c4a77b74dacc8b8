"""The moving digits as a data set: real files, splits by scans, all frames of a clip."""

import av
import numpy as np
import pytest

pytest.importorskip('mmaction')

from mmaction.registry import TRANSFORMS
from mmengine.config import Config

from lm4ve.demo_data import moving_digits as md
from lm4ve.tasks.video.datasets.moving_digits import (
    MovingDigitsDataset,
    write_moving_digits,
)
from tests.helpers.tasks import CONFIGS

SMALL = dict(train=16, val=8, test=8)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_moving_digits(tmp_path_factory.mktemp('data') / 'moving-digits', SMALL)


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
        dataset = MovingDigitsDataset(
            split, str(folder), SMALL, split_seed, pipeline=[], verify=False
        )
        return [info['filename'] for info in dataset.load_data_list()]

    fit, val = files('fit', 4), files('val', 4)
    assert sorted(fit + val) == files('train')
    assert val and val != files('val', 5)
    assert all('/val/' in name for name in files('val'))
    scans = [scan for scan, _, _ in md.plan_clips('train', SMALL['train'])]
    scan_of = dict(zip(files('train'), scans, strict=True))
    assert not {scan_of[name] for name in fit} & {scan_of[name] for name in val}


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
def test_a_clip_has_all_frames_in_their_order(mode):
    cfg = Config.fromfile(CONFIGS / '_base_/video/moving-digits.py')
    sampler = TRANSFORMS.build(cfg[f'{mode}_dataloader'].dataset.pipeline[1])
    found = sampler(dict(total_frames=md.FRAMES, start_index=0))
    assert found['frame_inds'].tolist() == list(range(md.FRAMES))
