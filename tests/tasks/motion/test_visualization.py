"""Pictures of scenes show forecasts, truth and history."""

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from lm4ve.tasks.motion import MotionVisualizer
from lm4ve.tasks.motion.baselines import constant_velocity
from lm4ve.tasks.motion.visualization import draw_scene, save_grid
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
    save_grid(tmp_path / 'grid.png', [dict(scene=s) for s in scenes[:4]], columns=2)
    one, grid = (cv2.imread(str(tmp_path / f'{n}.png')) for n in ('one', 'grid'))
    np.testing.assert_array_equal(one[..., ::-1], full)
    assert grid.shape[0] > 1.8 * one.shape[0] and grid.shape[1] > 1.8 * one.shape[1]


def test_labels_overlap_neither_each_other_nor_truth(scenes):
    scene = straight(scenes[0])
    truth = scene.future[0]
    figure = Figure(figsize=(3, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    draw_scene(axes, scene, np.stack([truth] * 6), np.arange(6) / 15)  # all at one place
    FigureCanvasAgg(figure).draw()
    assert any(t.get_text().endswith(' m') for t in axes.texts)  # the scale bar
    boxes = [Text.get_window_extent(t) for t in axes.texts if '%' in t.get_text()]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    points = axes.transData.transform(scene.to_local(truth))
    assert not any(box.contains(*point) for box in boxes for point in points)
