"""The simulator: connected cities, plausible traffic, one data set per folder."""

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.motion.demo.traffic import build_city, windows
from lm4ve.tasks.motion.demo.traffic_files import TrafficDataset


def test_lanes_of_city_join_up():
    lanes = build_city('PIT')
    assert {j for lane in lanes for j in lane.successors} == set(range(len(lanes)))
    for lane in lanes:
        assert lane.successors
        for j in lane.successors:
            np.testing.assert_allclose(lane.line[-1], lanes[j].line[0], atol=1e-6)
    assert {lane.turn for lane in lanes} == {'NONE', 'LEFT', 'RIGHT'}
    assert max(len(lane.successors) for lane in lanes) >= 3


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
    with pytest.raises(UserError, match='split'):
        TrafficDataset('test', **fields)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.tex').touch()
    with pytest.raises(UserError, match='does not hold these'):
        TrafficDataset('val', **dict(fields, root=str(tmp_path / 'mine')))
    assert (tmp_path / 'mine/thesis.tex').exists()
