"""Farthest points that are known are those that would be computed."""

import copy
import multiprocessing

import numpy as np
import pytest
import torch

from lm4ve.tasks import pointcloud as pc
from lm4ve.tasks.pointcloud import known_picks
from tests.tasks.pointcloud.clouds import brute_force_picks


def cloud(seed=0):
    return np.random.default_rng(seed).integers(-999, 999, (40, 3)).astype('f4')


@pytest.fixture
def computed(monkeypatch):
    """Count how often picks are computed."""
    found, compute = [], known_picks.farthest_point_sample
    monkeypatch.setattr(
        known_picks, 'farthest_point_sample', lambda *a: found.append(a) or compute(*a)
    )
    return found


def sample(transform, points, number):
    picked = transform(dict(points=points, sample_idx=number))['points']
    assert np.array_equal(picked, points[brute_force_picks(points, len(picked))])


def test_each_cloud_is_computed_once(computed):
    transform = pc.SamplePoints(12, 'fps')
    for _ in range(3):
        for number in range(4):
            sample(transform, cloud(number), number)
    assert len(computed) == 4


def test_a_cloud_that_changed_is_computed_again(computed):
    transform, points = pc.SamplePoints(12, 'fps'), cloud()
    sample(transform, points, 0)
    points[5] += 1
    sample(transform, points, 0)
    assert len(computed) == 2


@pytest.mark.parametrize('byte', [3, 20], ids=['seal', 'picks'])
def test_what_was_written_in_part_does_not_count(computed, byte):
    transform, points = pc.SamplePoints(12, 'fps'), cloud()
    sample(transform, points, 7)
    transform._known._places[7, byte] ^= 1
    sample(transform, points, 7)
    sample(transform, points, 7)
    assert len(computed) == 2


def test_samples_beyond_the_memory_are_right(computed):
    known = known_picks.KnownPicks(12, size=150)  # two places
    for number in range(5):
        picks = known.of(cloud(number), number)
        assert np.array_equal(picks, brute_force_picks(cloud(number), 12))
    known.of(cloud(4), 4)
    assert len(computed) == 5


def _in_worker(transform):
    torch.set_num_threads(1)
    sample(transform, cloud(), 3)


def test_what_a_worker_has_computed_is_known_to_the_next(computed):
    transform = pc.SamplePoints(12, 'fps')
    worker = multiprocessing.get_context('fork').Process(target=_in_worker, args=(transform,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    sample(transform, cloud(), 3)
    assert not computed
    sample(copy.deepcopy(transform), cloud(), 3)  # as in a spawned process
    assert len(computed) == 1
