"""Pictures of rooms show what stands where, who asks, and what was answered."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from lm4ve.tasks.base.figures import to_image
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.rooms.drawing import (
    ASKER,
    GUESS,
    clear_boxes,
    corners_of,
    draw_answer,
    draw_from_above,
    draw_from_corner,
    heading_of,
    room_of,
)
from lm4ve.tasks.rooms.visualization import RoomVisualizationHook, RoomVisualizer

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
    found = VisionLanguageDataSample(metainfo=dict(text=TEXT, scene_id='s', gt_answers=['table']))
    found.set_answer(torch.tensor([0.25, 0.5]), ANSWERS)
    for key, value in fields.items():
        setattr(found, key, torch.tensor(value))
    return found


def pose(x: float, y: float, degrees: float) -> list[float]:
    return [x, y, 1.0, *Rotation.from_euler('z', degrees, degrees=True).as_quat()]


def drawn(draw, room) -> np.ndarray:
    figure = Figure(figsize=(3, 3), facecolor='white')
    draw(figure.add_axes((0, 0, 1, 1)), room)
    return to_image(figure)


def share(image: np.ndarray, color: str) -> int:
    return int((np.abs(image / 255 - to_rgb(color)).max(axis=-1) < 0.02).sum())


@pytest.mark.parametrize('degrees', [0, 30, 90, -120])
def test_who_asks_looks_along_minus_x_of_their_own_frame(degrees):
    angle = np.radians(degrees)
    expected = [-np.cos(angle), -np.sin(angle), 0]
    np.testing.assert_allclose(heading_of(np.array(pose(1, 2, degrees))), expected, atol=1e-9)
    longer = np.array(pose(1, 2, degrees)) * 3  # a model's quaternion has any length
    np.testing.assert_allclose(heading_of(longer), expected, atol=1e-9)
    np.testing.assert_allclose(heading_of(np.zeros(7)), [-1, 0, 0])


def test_corners_of_a_turned_box_are_those_of_a_rotation_by_hand():
    corners = corners_of(np.array([1.0, 2, 3, 2, 4, 6, np.pi / 2]))
    # A quarter turn: 2 m along x become 2 m along y.
    np.testing.assert_allclose(corners.min(axis=0), [1 - 2, 2 - 1, 0], atol=1e-9)
    np.testing.assert_allclose(corners.max(axis=0), [1 + 2, 2 + 1, 6], atol=1e-9)
    np.testing.assert_allclose(corners[0], [1 + 2, 2 - 1, 0], atol=1e-9)


def test_of_boxes_that_overlap_the_surest_is_kept_and_unsure_ones_go():
    boxes = np.zeros((5, 7))
    boxes[:, 3:6] = 1
    boxes[:, 0] = (0, 0.2, 5, 9, 0.7)  # the last one shares 0.3 of 1.7 with the first
    kept = clear_boxes(boxes, np.array([0.8, 0.9, 0.6, 0.4, 0.7]))
    assert kept[:, 0].tolist() == [0.2, 5]
    kept = clear_boxes(boxes, np.array([0.9, 0.8, 0.6, 0.4, 0.7]))
    assert kept[:, 0].tolist() == [0, 0.7, 5]


def test_a_plan_has_the_colors_of_the_floor_in_their_places_without_the_ceiling():
    for ceiling in (0.0, 2.6):
        image = drawn(draw_from_above, room_of(points(ceiling), sample())).astype(int)
        left, right = image[:, 20:130], image[:, 170:280]
        assert left[..., 0].mean() > right[..., 0].mean() + 60
        assert right[..., 2].mean() > left[..., 2].mean() + 60
    bare = room_of(torch.tensor(points()[:, :3]), sample())
    assert np.ptp(bare.colors, axis=1).max() == 0


@pytest.mark.parametrize('draw', [draw_from_above, draw_from_corner])
def test_who_asks_stands_where_they_are_and_the_guess_beside(draw):
    none = drawn(draw, room_of(points(), sample()))
    assert share(none, ASKER) == share(none, GUESS) == 0
    both = sample(gt_pose=pose(1, 1, 0), pred_pose=pose(3, 3, 90))
    image = drawn(draw, room_of(points(), both))
    assert min(share(image, ASKER), share(image, GUESS)) > 40
    if draw is draw_from_above:
        for color, x, y in ((ASKER, 1, 1), (GUESS, 3, 3)):
            near = np.abs(image / 255 - to_rgb(color)).max(axis=-1) < 0.02
            row, column = np.argwhere(near).mean(axis=0) / 300
            assert abs(column - x / 4) < 0.15 and abs(1 - row - y / 4) < 0.15


def test_the_picture_says_situation_question_answers_and_truth():
    boxes = np.array([[1.0, 1, 0.5, 1, 1, 1, 0]])
    known = sample(gt_pose=pose(1, 1, 0), pred_boxes=boxes, pred_box_scores=[0.9])
    figure = draw_answer(room_of(points(), known), *TEXT, [('table', 0.5), ('chair', 0.25)], ['x'])
    words = [t.get_text() for t in figure.texts]
    assert words[:2] == TEXT and 'truth: x' in words
    bars = figure.axes[2].patches
    assert [b.get_width() for b in bars] == [0.5, 0.25]
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ['who asks, and where they look', 'proposals']
    right = draw_answer(None, *TEXT, [('table', 0.5)], ['table'])
    assert len(right.axes) == 1 and not right.legends
    assert right.axes[0].patches[0].get_facecolor()[:3] == to_rgb('#1a8f3c')


def test_the_visualizer_draws_rooms_and_what_has_no_points(tmp_path):
    visualizer = RoomVisualizer()
    for name, given in (('room', points()), ('stored', None)):
        path = tmp_path / f'{name}.png'
        image = visualizer.add_datasample(name, given, sample(), ANSWERS, out_file=str(path))
        assert path.is_file() and image.std() > 10
    reds = [
        visualizer.add_datasample('a', x, sample(), ANSWERS, out_file=str(tmp_path / 'a.png'))
        for x in (points(), None)
    ]
    assert share(reds[0], '#ff0000') > 500 and share(reds[1], '#ff0000') == 0


@pytest.mark.parametrize('stored', [False, True])
def test_the_hook_draws_rooms_of_a_batch(stored, tmp_path):
    runner = SimpleNamespace(
        model=SimpleNamespace(head=SimpleNamespace(vocabulary=ANSWERS)),
        visualizer=RoomVisualizer(),
        test_dataloader=SimpleNamespace(batch_size=2),
        iter=3,
    )
    hook = RoomVisualizationHook(enable=True, interval=2, out_dir=str(tmp_path))
    inputs = (
        dict(objects=[torch.zeros(2, 9)] * 2)
        if stored
        else dict(points=[torch.tensor(points())] * 2)
    )
    hook.after_test_iter(runner, 0, dict(inputs=inputs), [sample(), sample()])
    assert [p.name for p in tmp_path.iterdir()] == ['test_00000_s_3.png']


def test_points_are_drawn_once_each():
    figure = Figure(figsize=(3, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    draw_from_above(axes, room_of(points(), sample()))
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert len(dots.get_offsets()) == len(points())
