"""3-D pictures: near things cover far ones, colors are exact; a flat form without open3d."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from mmengine.structures import BaseDataElement

from lm4ve.draw import solids
from lm4ve.draw.figures import to_image
from lm4ve.draw.pictures import TokenMap
from lm4ve.draw.solids import Solids, draw_solids, render
from lm4ve.errors import UserError
from lm4ve.tasks.pointcloud.visualization import Cloud
from lm4ve.tasks.rooms.visualization import draw_corner

RED = (1.0, 0.0, 0.0)
GREEN = (0.0, 0.5, 0.0)
BLUE = (0.0, 0.0, 1.0)
WHITE = (1.0, 1.0, 1.0)


@pytest.fixture(params=['open3d', 'flat'])
def renderer(request, monkeypatch):
    """Both ways of drawing: with open3d, and as on a machine where it cannot be imported."""
    if request.param == 'flat':

        def lacks():
            raise UserError('open3d cannot be imported: libEGL.so.1')

        monkeypatch.setattr(solids, 'load_open3d', lacks)
    return request.param


def drawn(draw, reach):
    """Return the image of axes that fill a figure, and a function from places to its pixels."""
    right, top = reach
    figure = Figure((4, 4 * top / right), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    draw(axes)
    axes.set_axis_off()
    image = to_image(figure)
    height, width, _ = image.shape

    def color_at(place):
        x, y = place[:2]
        column = (x + right) / (2 * right) * width
        row = (top - y) / (2 * top) * height
        return image[int(row), int(column)]

    return color_at


@pytest.mark.parametrize('order', [[0, 1, 2], [2, 1, 0], [1, 2, 0]], ids=str)
def test_near_balls_cover_far_ones_in_any_order(order, renderer):
    far, near, alone = (-0.5, 0, 0), (-0.5, 0, 2), (1, 0.5, -3)
    centers = np.array([far, near, alone], float)[order]
    colors = np.array([RED, GREEN, BLUE])[order]
    scene = Solids(centers, np.full(3, 0.4), colors)
    color_at = drawn(lambda axes: draw_solids(axes, scene, (2, 1)), (2, 1))
    assert_color(color_at(near), GREEN)
    assert_color(color_at(alone), BLUE)
    assert_color(color_at((1, -0.5)), WHITE)


def assert_color(found, expected, tolerance=3):
    """Compare a pixel, 0 to 255, with a color, 0 to 1."""
    assert np.abs(found - 255 * np.array(expected)).max() <= tolerance


def test_colors_in_the_middle_of_balls_and_behind_them_are_exact():
    shades = colormaps['viridis'](np.linspace(0, 1, 7))[:, :3]
    centers = np.column_stack((np.arange(7) - 3.0, np.zeros((7, 2))))
    scene = Solids(centers, np.full(7, 0.4), shades)
    image = render(scene, (3.5, 0.5), (350, 50), background=(0.2, 0.4, 0.6))
    middles = image[25, 50 * np.arange(7) + 25].astype(int)
    assert_color(middles, shades, tolerance=2.5)
    assert image[0, 0].tolist() == [51, 102, 153]


def test_rods_join_their_ends_and_cones_end_in_a_point():
    rod = [-1, 0.5, 0, 1, 0.5, 0, 0.1, 0.1]
    cone = [-1, -0.5, 0, 1, -0.5, 0, 0.3, 0]
    rods = np.array([rod, cone], float)
    nothing = np.zeros((0, 3))
    scene = Solids(nothing, np.zeros(0), nothing, rods, np.array([RED, BLUE]))
    image = render(scene, (2, 1), (200, 100), WHITE)
    is_drawn = (image < 255).any(axis=2)
    # 50 pixels a unit: the rod is 2 x 0.2, the cone half of 2 x 0.6.
    assert is_drawn[:50].sum() == pytest.approx(100 * 10, rel=0.05)
    assert is_drawn[50:].sum() == pytest.approx(100 * 30 / 2, rel=0.05)


def test_a_rod_without_length_hides_nothing():
    nowhere = [0.5, 0, 0, 0.5, 0, 0, 0.1, 0.1]
    scene = Solids(
        np.array([[-0.5, 0.0, 0.0]]),
        np.array([0.4]),
        np.array([RED]),
        np.array([nowhere]),
        np.array([BLUE]),
    )
    image = render(scene, (1, 1), (60, 60), WHITE)
    assert_color(image[30, 15].astype(int), RED)
    assert_color(image[30, 45].astype(int), WHITE)


def test_a_scene_without_solids_is_its_background():
    nothing = np.zeros((0, 3))
    image = render(Solids(nothing, np.zeros(0), nothing), (1, 1), (4, 4), RED)
    assert (image == (255, 0, 0)).all()


def test_points_of_a_cloud_have_the_colors_of_their_groups(renderer):
    points = np.array([(0, 0, 0), (4, 0, 0), (0, 4, 0), (0, 0, 4)], float)
    cloud = Cloud(points, np.array([[1], [2], [3]]))
    tokens = TokenMap('block', '', np.array([0.0, 0.5, 1.0]), (3,))
    reach = 1.06 * np.abs(cloud.seen[:, :2]).max()
    color_at = drawn(
        lambda axes: cloud.draw_values(axes, tokens, 'viridis'), (reach, reach)
    )
    for place, value in zip(cloud.seen[1:], tokens.values, strict=True):
        color = colormaps['viridis'](value)[:3]
        assert_color(color_at(place), color, tolerance=4)
    # Without a group: gray.
    assert np.ptp(color_at(cloud.seen[0]).astype(int)) <= 3


@pytest.mark.parametrize('count', [1, 5])
def test_points_in_one_place_are_drawn(count, renderer):
    points = np.ones((count, 6))
    figure = Figure((4, 2), dpi=50)
    left, right = figure.subplots(1, 2)
    Cloud(points[:, :3], np.array([[0]])).draw_input(left)
    draw_corner(right, points, BaseDataElement())
    assert (to_image(figure) < 60).all(axis=2).any()


def test_a_room_is_seen_from_a_corner_without_what_hides_it(renderer):
    rng = np.random.default_rng(0)
    floor = np.column_stack((rng.uniform(-2, 2, (400, 2)), np.zeros(400)))
    ceiling = floor + [0, 0, 3]
    near_wall = np.column_stack(
        (rng.uniform(-2, 2, 400), np.full(400, -2), rng.uniform(0.3, 2, 400))
    )
    colors = np.repeat([(128, 128, 128), (255, 0, 0), (0, 255, 0)], 400, axis=0)
    points = np.hstack((np.concatenate((floor, ceiling, near_wall)), colors))
    sample = BaseDataElement(
        pred_boxes=torch.tensor([[0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 0.3]]),
        pred_box_scores=torch.ones(1),
        gt_pose=torch.tensor([0.0, 0, 0, 0, 0, 0, 1]),
    )
    figure = Figure((4, 4), dpi=100)
    draw_corner(figure.subplots(), points, sample)
    image = to_image(figure).reshape(-1, 3).astype(int)
    red, green, blue = image.T
    is_near_wall = (green > 120) & (red < 40) & (blue < 40)
    is_ceiling = (red > 200) & (green < 20) & (blue < 20)
    is_proposal = (red > 180) & (abs(green - 125) < 40) & (blue < 60)
    is_asker = (red > 150) & (abs(green - 39) < 20) & (abs(blue - 40) < 20)
    assert not is_near_wall.any()
    assert not is_ceiling.any()
    assert is_proposal.sum() > 30
    assert is_asker.sum() > 30
