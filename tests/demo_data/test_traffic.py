"""Simulated traffic keeps to the lanes of its city."""

import numpy as np

from lm4ve.demo_data.traffic import build_city, windows


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
