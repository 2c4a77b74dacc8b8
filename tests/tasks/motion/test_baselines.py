"""Forecasts without training, and the simulator's data set."""

import numpy as np
import pytest

from lm4ve.demo_data import traffic
from lm4ve.errors import UserError
from lm4ve.tasks.motion import structures
from lm4ve.tasks.motion.datasets.traffic_files import TrafficDataset
from lm4ve.tasks.motion.models.baselines import (
    NearestNeighbor,
    constant_velocity,
    kalman_filter,
)
from tests.helpers.motion.moving import moved, straight


@pytest.mark.parametrize(
    'baseline, close', [(constant_velocity, 1e-9), (kalman_filter, 0.1)]
)
def test_straight_motion_is_continued_despite_gaps(baseline, close, scenes):
    scene = straight(scenes[0])
    future, _ = scene.future
    lines, probabilities = baseline(scene)
    assert lines.shape == (1, 30, 2)
    assert probabilities.tolist() == [1.0]
    assert np.abs(lines[0] - future).max() < close
    # What lies in a gap is not read.
    scene.valid[scene.focal, 3:15] = False
    expected, _ = baseline(scene)
    scene.positions[scene.focal, 3:15] = 1e6
    found, _ = baseline(scene)
    np.testing.assert_array_equal(found, expected)


def test_nearest_neighbor_of_known_scene_is_itself(scenes):
    scene = moved(scenes[2], 1.0, [500.0, -70.0])
    future, _ = scene.future
    lines, probabilities = NearestNeighbor(scenes, k=3)(scene)
    assert np.abs(lines[0] - future).max() < 1e-6
    assert probabilities.argmax() == 0
    assert probabilities.sum() == pytest.approx(1)
    with pytest.raises(UserError, match='at least 6'):
        NearestNeighbor(scenes[:2], k=6)


def test_simulated_data_is_made_once(tmp_path):
    fields = dict(root=str(tmp_path / 'd'), counts=dict(train=3, val=2))
    first = TrafficDataset('val', **fields)
    time = (tmp_path / 'd/val.cache').stat().st_mtime_ns
    assert len(first) == len(TrafficDataset('val', **fields)) == 2
    assert (tmp_path / 'd/val.cache').stat().st_mtime_ns == time
    with pytest.raises(UserError, match='does not hold these'):
        TrafficDataset('val', **dict(fields, counts=dict(train=4, val=2)))


def test_the_simulator_steps_as_argoverse_does():
    assert traffic.STEP == structures.STEP
    assert traffic.LANE_POINTS == structures.LANE_POINTS
