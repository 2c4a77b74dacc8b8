"""Pictures of rooms show what stands where, the asker, and the answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.base.pictures import to_image
from lm4ve.tasks.rooms.visualization import (
    ASKER,
    CORNER,
    GUESS,
    RoomVisualizationHook,
    RoomVisualizer,
    clear_boxes,
    corners_of,
    draw_answer,
    draw_room,
    heading_of,
    room_of,
)

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


def drawn(room, eye=None) -> np.ndarray:
    figure = Figure(figsize=(3, 3), facecolor='white')
    draw_room(figure.add_axes((0, 0, 1, 1)), room, eye)
    return to_image(figure)


def places_of(image: np.ndarray, color: str) -> np.ndarray:
    return np.argwhere(np.abs(image / 255 - to_rgb(color)).max(axis=-1) < 0.02)


@pytest.mark.parametrize('degrees', [0, 30, 90, -120])
def test_the_asker_looks_along_minus_x(degrees):
    angle = np.radians(degrees)
    expected = [-np.cos(angle), -np.sin(angle), 0]
    np.testing.assert_allclose(heading_of(np.array(pose(1, 2, degrees))), expected, atol=1e-9)
    longer = np.array(pose(1, 2, degrees)) * 3  # a model's quaternion has any length
    np.testing.assert_allclose(heading_of(longer), expected, atol=1e-9)
    np.testing.assert_allclose(heading_of(np.zeros(7)), [-1, 0, 0])


def test_corners_of_a_box_rotate_with_its_angle():
    corners = corners_of(np.array([1.0, 2, 3, 2, 4, 6, np.pi / 2]))
    # A quarter turn: 2 m along x become 2 m along y.
    np.testing.assert_allclose(corners.min(axis=0), [1 - 2, 2 - 1, 0], atol=1e-9)
    np.testing.assert_allclose(corners.max(axis=0), [1 + 2, 2 + 1, 6], atol=1e-9)
    np.testing.assert_allclose(corners[0], [1 + 2, 2 - 1, 0], atol=1e-9)


def test_overlapping_and_unsure_boxes_are_suppressed():
    boxes = np.zeros((5, 7))
    boxes[:, 3:6] = 1
    boxes[:, 0] = (0, 0.2, 5, 9, 0.7)  # the last one shares 0.3 of 1.7 with the first
    for scores, expected in (([0.8, 0.9], [0.2, 5]), ([0.9, 0.8], [0, 0.7, 5])):
        kept = clear_boxes(boxes, np.array([*scores, 0.6, 0.4, 0.7]))
        assert kept[:, 0].tolist() == expected


@pytest.mark.parametrize('ceiling', [0.0, 2.6])
def test_a_plan_shows_the_floor_below_the_ceiling(ceiling):
    image = drawn(room_of(points(ceiling), sample())).astype(int)
    left, right = image[:, 20:130], image[:, 170:280]
    assert left[..., 0].mean() > right[..., 0].mean() + 60
    assert right[..., 2].mean() > left[..., 2].mean() + 60
    bare = room_of(torch.tensor(points(ceiling)[:, :3]), sample())
    assert np.ptp(bare.colors, axis=1).max() == 0


@pytest.mark.parametrize('eye', [None, CORNER])
def test_the_asker_and_the_prediction_are_in_place(eye):
    none = drawn(room_of(points(), sample()), eye)
    assert not len(places_of(none, ASKER)) and not len(places_of(none, GUESS))
    both = sample(gt_pose=pose(1, 1, 0), pred_pose=pose(3, 3, 90))
    image = drawn(room_of(points(), both), eye)
    for color, place in ((ASKER, 1 / 4), (GUESS, 3 / 4)):
        found = places_of(image, color)
        assert len(found) > 40
        if eye is None:
            row, column = found.mean(axis=0) / 300
            assert abs(column - place) < 0.15 and abs(1 - row - place) < 0.15


def test_an_answer_has_texts_bars_and_truth():
    boxes = np.array([[1.0, 1, 0.5, 1, 1, 1, 0]])
    known = sample(gt_pose=pose(1, 1, 0), pred_boxes=boxes, pred_box_scores=[0.9])
    figure = draw_answer(room_of(points(), known), *TEXT, [('table', 0.5), ('chair', 0.25)], ['x'])
    assert figure.get_suptitle().split('\n') == TEXT and 'truth: x' in figure.get_supxlabel()
    assert [b.get_width() for b in figure.axes[2].patches] == [0.5, 0.25]
    right = draw_answer(None, *TEXT, [('table', 0.5)], ['table'])
    (bars,) = right.axes
    assert bars.patches[0].get_facecolor()[:3] == to_rgb('#1a8f3c')


def test_the_visualizer_draws_with_and_without_points(tmp_path):
    visualizer, reds = RoomVisualizer(), []
    for name, given in (('room', points()), ('stored', None)):
        path = tmp_path / f'{name}.png'
        image = visualizer.add_datasample(name, given, sample(), ANSWERS, out_file=str(path))
        assert path.is_file() and image.std() > 10
        reds.append(len(places_of(image, '#ff0000')))
    assert reds[0] > 500 and reds[1] == 0


@pytest.mark.parametrize(
    'inputs',
    [dict(objects=[torch.zeros(2, 9)] * 2), dict(points=[torch.tensor(points())] * 2)],
    ids=['objects', 'points'],
)
def test_the_hook_draws_every_second_sample(inputs, tmp_path):
    runner = SimpleNamespace(
        model=SimpleNamespace(head=SimpleNamespace(vocabulary=ANSWERS)),
        visualizer=RoomVisualizer(),
        test_dataloader=SimpleNamespace(batch_size=2),
        iter=3,
    )
    hook = RoomVisualizationHook(enable=True, interval=2, out_dir=str(tmp_path))
    hook.after_test_iter(runner, 0, dict(inputs=inputs), [sample(), sample()])
    assert [p.name for p in tmp_path.iterdir()] == ['test_00000_s_3.png']
