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
    lines, p = baseline(scene)
    assert lines.shape == (1, 30, 2) and p.tolist() == [1.0]
    assert np.abs(lines[0] - scene.future[0]).max() < close
    scene.valid[scene.focal, 3:15] = False
    expected = baseline(scene)[0]
    scene.positions[scene.focal, 3:15] = 1e6
    np.testing.assert_array_equal(baseline(scene)[0], expected)


def test_nearest_neighbor_of_known_scene_is_itself(scenes):
    scene = moved(scenes[2], 1.0, [500.0, -70.0])
    lines, p = NearestNeighbor(scenes, k=3)(scene)
    assert np.abs(lines[0] - scene.future[0]).max() < 1e-6
    assert p.argmax() == 0 and p.sum() == pytest.approx(1)
    with pytest.raises(UserError, match='at least 6'):
        NearestNeighbor(scenes[:2], k=6)


def test_traffic_keeps_to_lanes_and_repeats_by_seed():
    first, second = (windows('PIT', 5, 4, 50, 20) for _ in range(2))
    lines = np.concatenate([lane.line for lane in build_city('PIT')])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.tracks, b.tracks)
        seen = a.tracks[a.valid][:, :2]
        nearest = np.linalg.norm(seen[:, None] - lines, axis=-1).min(1)
        assert nearest.max() < 6.0  # half the distance of two points, and noise
        assert a.valid[a.focal, 10:].all() and a.valid[a.sensor].all()
    assert not all(w.valid.all() for w in first)
    (other,) = windows('PIT', 6, 1, 50, 20)
    assert not np.array_equal(other.tracks, first[0].tracks)


def test_simulated_data_is_made_once(tmp_path):
    fields = dict(root=str(tmp_path / 'd'), counts=dict(train=3, val=2))
    first = TrafficDataset('val', **fields)
    time = (tmp_path / 'd/val.cache').stat().st_mtime_ns
    assert len(first) == len(TrafficDataset('val', **fields)) == 2
    assert (tmp_path / 'd/val.cache').stat().st_mtime_ns == time
    with pytest.raises(UserError, match='does not hold these'):
        TrafficDataset('val', **dict(fields, counts=dict(train=4, val=2)))
