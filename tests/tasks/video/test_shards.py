"""Videos in shards are the videos of a list: the same clips and checks."""

import numpy as np
import pytest

pytest.importorskip('mmaction')

from mmengine.registry import DATASETS, init_default_scope

from lm4ve.tasks.video.corruption import find_defect
from tests.tasks.video.videos import pipeline, write_list, write_noise
from tools.dataset_converters.shards import Entry, write_shards

DECORD, AV = (pipeline(name, test_mode=True) for name in ('Decord', 'PyAV'))


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """A list of three videos, and shards of them."""
    root = tmp_path_factory.mktemp('videos')
    paths = [write_noise(root / f'{i}.mp4', seed=i) for i in range(3)]
    entries = [Entry(str(p), p.name, i) for i, p in enumerate(paths)]
    write_shards(entries, root / 'shards', 'val', 2, find_defect)
    return write_list(root / 'list.txt', paths), str(root / 'shards/val.index.json')


def build(type: str, ann_file: str, pipeline=DECORD, **kwargs):
    init_default_scope('mmaction')
    return DATASETS.build(
        dict(type=f'lm4ve.{type}', ann_file=ann_file, pipeline=pipeline, **kwargs)
    )


@pytest.mark.parametrize('pipeline', [DECORD, AV])
def test_clips_are_those_of_the_list(videos, pipeline):
    single = build('CheckedVideoDataset', videos[0], pipeline, test_mode=True)
    # The prefix of a config that is overridden plays no part.
    prefix = dict(video='data/sthv2')
    data = build('VideoShards', videos[1], pipeline, test_mode=True, data_prefix=prefix)
    assert len(data) == len(single) == 3 and data.is_scanned()
    for one, other in zip(data, single, strict=True):
        assert np.array_equal(one['inputs'], other['inputs'])
        assert one['data_samples'].gt_label == other['data_samples'].gt_label


def test_repeated_sampling_reads_shards(videos):
    one = build('RepeatAugVideoShards', videos[1], num_repeats=2)[1]
    other = build('CheckedRepeatAugDataset', videos[0], num_repeats=2)[1]
    assert len(one) == 2 and np.array_equal(one[1]['inputs'], other[1]['inputs'])
