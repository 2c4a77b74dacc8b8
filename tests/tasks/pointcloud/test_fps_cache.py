"""Farthest points of the cache equal those that would be computed."""

import copy
import multiprocessing

import numpy as np
import pytest
import torch

from lm4ve.tasks import pointcloud as pc
from lm4ve.tasks.pointcloud import fps_cache
from tests.tasks.pointcloud.clouds import brute_force_picks
from tests.tasks.pointcloud.clouds import whole_cloud as cloud


@pytest.fixture
def computed(monkeypatch):
    """Count how often picks are computed."""
    found, compute = [], fps_cache.farthest_point_sample
    monkeypatch.setattr(
        fps_cache, 'farthest_point_sample', lambda *a: found.append(a) or compute(*a)
    )
    return found


def sample(transform, points, number):
    picked = transform(dict(points=points, sample_idx=number))['points']
    assert np.array_equal(picked, points[brute_force_picks(points, len(picked))])


@pytest.mark.parametrize('changed', ['cloud', 'seal', 'picks'])
def test_changed_clouds_and_rows_are_computed_again(computed, changed):
    transform, points = pc.SamplePoints(12, 'fps'), cloud()
    sample(transform, points, 7)
    if changed == 'cloud':
        points[5] += 1
    else:
        transform._cache.rows[7, dict(seal=3, picks=20)[changed]] ^= 1
    for _ in range(2):
        sample(transform, points, 7)
    assert len(computed) == 2


def test_samples_that_share_a_row_are_right(computed):
    cache = fps_cache.FPSCache(12, size=150)  # two rows
    for number in (0, 1, 2, 3, 4, 4):
        picks = cache.picks(cloud(number), number)
        assert np.array_equal(picks, brute_force_picks(cloud(number), 12))
    assert len(computed) == 5


def _in_worker(transform):
    torch.set_num_threads(1)
    sample(transform, cloud(), 3)


def test_forked_workers_share_the_cache(computed):
    transform = pc.SamplePoints(12, 'fps')
    worker = multiprocessing.get_context('fork').Process(target=_in_worker, args=(transform,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    sample(transform, cloud(), 3)
    assert not computed
    sample(copy.deepcopy(transform), cloud(), 3)  # as in a spawned process
    assert len(computed) == 1
