"""Forecasts without training, and the simulator."""

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.motion.demo.traffic import build_city, windows
from lm4ve.tasks.motion.demo.traffic_files import TrafficDataset
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


def test_traffic_keeps_to_lanes_and_repeats_by_seed():
    first = windows('PIT', 5, 4, 50, 20)
    again = windows('PIT', 5, 4, 50, 20)
    for window, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(window.tracks, same.tracks)
    (other,) = windows('PIT', 6, 1, 50, 20)
    assert not np.array_equal(other.tracks, first[0].tracks)

    points = np.concatenate([lane.line for lane in build_city('PIT')])
    for window in first:
        observed = window.tracks[window.valid][:, :2]
        nearest = np.linalg.norm(observed[:, None] - points, axis=-1).min(1)
        assert nearest.max() < 6.0  # half the distance of two points, and noise
        assert window.valid[window.focal, 10:].all()
        assert window.valid[window.sensor].all()
    assert not all(window.valid.all() for window in first)


def test_simulated_data_is_made_once(tmp_path):
    fields = dict(root=str(tmp_path / 'd'), counts=dict(train=3, val=2))
    first = TrafficDataset('val', **fields)
    time = (tmp_path / 'd/val.cache').stat().st_mtime_ns
    assert len(first) == len(TrafficDataset('val', **fields)) == 2
    assert (tmp_path / 'd/val.cache').stat().st_mtime_ns == time
    with pytest.raises(UserError, match='does not hold these'):
        TrafficDataset('val', **dict(fields, counts=dict(train=4, val=2)))
