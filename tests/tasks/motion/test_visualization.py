"""Pictures of scenes show forecasts, truth and history."""

import cv2
import numpy as np

from lm4ve.tasks.base.pictures import to_image
from lm4ve.tasks.motion import MotionVisualizer
from lm4ve.tasks.motion.baselines import constant_velocity
from lm4ve.tasks.motion.visualization import scene_grid
from tests.tasks.motion.moving import straight

RED, GREEN, BLUE = [208, 69, 43], [26, 143, 60], [31, 78, 156]


def drawn(image, color):
    return (np.abs(image.astype(int) - color).max(-1) < 40).sum()


def test_picture_shows_forecasts_truth_and_history(scenes, tmp_path):
    scene = straight(scenes[0])
    lines, p = constant_velocity(scene)
    visualizer = MotionVisualizer(name='t', vis_backends=[])
    plain = visualizer.add_datasample('a', dict(scene=scene))
    sample = dict(scene=scene, trajectories=lines + [0.0, 9.0], probabilities=p)
    full = visualizer.add_datasample('a', sample, out_file=str(tmp_path / 'one.png'))
    assert drawn(full, RED) > drawn(plain, RED) + 50
    assert drawn(full, GREEN) > 50 and drawn(full, BLUE) > 50
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'one.png'))[..., ::-1], full)
    grid = to_image(scene_grid([dict(scene=s) for s in scenes[:4]], columns=2))
    assert (np.array(grid.shape[:2]) > 1.8 * np.array(full.shape[:2])).all()
