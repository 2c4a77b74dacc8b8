"""Forecasts without training: straight motion is continued, known scenes are found."""

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.motion.baselines import NearestNeighbor, constant_velocity, kalman_filter
from tests.tasks.motion.moving import moved, straight


@pytest.mark.parametrize('baseline, close', [(constant_velocity, 1e-9), (kalman_filter, 0.1)])
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
