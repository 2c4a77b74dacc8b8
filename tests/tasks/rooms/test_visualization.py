"""Pictures of rooms show what stands where, the asker, and the answers."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from scipy.spatial.transform import Rotation

from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.base.pictures import to_image
from lm4ve.tasks.rooms.visualization import ASKER, GUESS, clear_boxes, draw_room, draw_sample

TEXT = ['I am facing the red wall.', 'What is behind me?']
ANSWERS = ['chair', 'table']


def points(ceiling: float = 0.0) -> np.ndarray:
    """A floor of 4 x 4 m, red on its left and blue on its right half, perhaps with a ceiling."""
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, 4, 30), np.linspace(0, 4, 30)))
    red = x < 2
    floor = np.stack([x, y, 0 * x, 255 * red, 0 * x, 255 * ~red], axis=1)
    above = np.stack([x, y, 0 * x + ceiling, *3 * (0 * x + 255,)], axis=1)
    return np.concatenate([floor, above]) if ceiling else floor


def sample(**fields) -> VisionLanguageDataSample:
    found = VisionLanguageDataSample(metainfo=dict(text=TEXT, gt_answers=['table']))
    found.set_answer(torch.tensor([0.25, 0.5]), ANSWERS)
    for key, value in fields.items():
        setattr(found, key, torch.tensor(value))
    return found


def pose(x: float, y: float, degrees: float) -> list[float]:
    return [x, y, 1.0, *Rotation.from_euler('z', degrees, degrees=True).as_quat() * 2]


def test_likely_boxes_suppress_those_they_overlap():
    boxes = np.zeros((5, 7))
    boxes[:, 3:6] = 1
    boxes[:, 0] = (0, 0.2, 5, 9, 0.7)  # the last one shares 0.3 of 1.7 with the first
    for scores, expected in (([0.8, 0.9], [0.2, 5]), ([0.9, 0.8], [0, 0.7, 5])):
        kept = clear_boxes(sample(pred_boxes=boxes, pred_box_scores=[*scores, 0.6, 0.4, 0.7]))
        assert kept[:, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize('ceiling', [0.0, 2.6])
def test_a_plan_shows_floor_asker_and_prediction(ceiling):
    figure = Figure(figsize=(3, 3), facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    draw_room(axes, points(ceiling), sample(gt_pose=pose(1, 1, 30), pred_pose=pose(3, 3, 90)))
    image = to_image(figure).astype(int)
    left, right = image[:, 20:130], image[:, 170:280]
    assert left[..., 0].mean() > right[..., 0].mean() + 60
    assert right[..., 2].mean() > left[..., 2].mean() + 60
    arrows = {q.get_facecolor()[0][:3].tobytes(): q for q in axes.findobj(Quiver)}
    for color, place, degrees in ((ASKER, 1, 30), (GUESS, 3, 90)):
        arrow = arrows[np.array(to_rgb(color)).tobytes()]
        angle = np.radians(degrees)  # the asker looks along minus x
        looks = [arrow.U[0], arrow.V[0]]
        np.testing.assert_allclose(looks, [-np.cos(angle), -np.sin(angle)], atol=1e-6)
        assert arrow.get_offsets()[0].tolist() == [place, place]
        row, column = np.argwhere(abs(image / 255 - to_rgb(color)).max(-1) < 0.02).mean(0) / 300
        assert abs(column - place / 4) < 0.2 and abs(1 - row - place / 4) < 0.2


def test_an_answer_has_texts_bars_and_truth():
    boxes = np.array([[1.0, 1, 0.5, 1, 1, 1, 0]])
    known = sample(gt_pose=pose(1, 1, 0), pred_boxes=boxes, pred_box_scores=[0.9])
    for given, count in ((points()[:, :3], 2), (None, 1)):
        figure = draw_sample(given, known, ANSWERS)
        assert figure.get_suptitle().split('\n') == TEXT and len(figure.axes) == count
        bars = figure.axes[-1]
        assert bars.get_xlabel() == 'truth: table'
        assert [b.get_width() for b in bars.patches] == [0.5, 0.25]
        assert bars.patches[0].get_facecolor()[:3] == to_rgb('#1a8f3c')
