"""Pictures of rooms: plan and corner view with asker and proposals, answers, tokens of objects."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.spatial.transform import Rotation
from torchvision.ops import nms

from lm4ve.draw.figures import without_ticks
from lm4ve.draw.pictures import Picture, TokenMap
from lm4ve.draw.rankings import best, draw_bars
from lm4ve.draw.solids import Solids, draw_solids, view_axes
from lm4ve.draw.words import draw_words, flow

#: The asker looks along minus x of their own frame (SQA3D's utils/visualize_data.py).
FORWARD = (-1.0, 0.0, 0.0)
PROPOSAL = '#ff7f0e'
ASKER = '#d62728'
GUESS = '#1f5fd0'
#: Poses of a sample, the predicted one first, and their colors.
_POSES = {'pred_pose': GUESS, 'gt_pose': ASKER}
_KEY = 'red: asker, blue: predicted asker, orange: proposals'
#: Nothing is drawn higher above the floor, in meters, since ceilings hide rooms.
_CUT = 2.2
#: Proposals with at least this score are drawn.
_SCORE = 0.5
#: They are left out if they overlap better ones by more than this.
_OVERLAP = 0.25
#: The corner view has at most so many points, since each is a ball.
_MOST_BALLS = 20_000
#: Its radii in meters: of points (at most), edges of boxes, an arrow's shaft and tip,
#: and people.
_POINT = 0.045
_EDGE = 0.012
_SHAFT = 0.035
_TIP = 0.11
_PERSON = 0.14
#: Points this close to the near walls hide the room and are left out, in meters.
_NEAR_WALL = 0.2
#: They stay up to this height above the floor.
_SKIRTING = 0.1


def draw_room(axes: Axes, points: Any, sample: Any = None) -> None:
    """Draw a room from above, without its ceiling.

    Args:
        axes (Axes): Where to draw, x to the right and y up.
        points (np.ndarray | Tensor): ``[P, 3 + F]``, in meters; of six columns and
            more, columns 3 to 5 are red, green and blue from 0 to 255.
        sample (VisionLanguageDataSample, optional): Its proposals, the asker's pose and
            the prediction of it are drawn where they are known. None: the points alone,
            pale.
    """
    points = np.asarray(points)
    floor = np.percentile(points[:, 2], 1)  # a few points may lie below it
    shown = points[points[:, 2] < floor + _CUT]
    shown = shown[shown[:, 2].argsort(kind='stable')]
    size = np.clip(4e4 / max(len(shown), 1), 1, 24)
    alpha = 0.25 if sample is None else 1
    axes.scatter(
        shown[:, 0],
        shown[:, 1],
        c=_colors_of(shown),
        s=size,
        linewidths=0,
        alpha=alpha,
    )
    if sample is not None:
        _draw_proposals(axes, sample)
        _draw_askers(axes, sample)
    axes.set_aspect('equal', adjustable='datalim')
    without_ticks(axes)


def _colors_of(points: np.ndarray) -> np.ndarray:
    """Return the colors of points from 0 to 1, ``[P, 3]``; gray where they have none."""
    if points.shape[1] < 6:
        return np.full((len(points), 3), 0.5)
    return np.clip(points[:, 3:6] / 255, 0, 1)


def _draw_proposals(axes: Axes, sample: Any) -> None:
    """Draw the likely proposals from above, if the sample has any."""
    if 'pred_boxes' not in sample:
        return
    for x, y, _, width, depth, _, angle in clear_boxes(sample).tolist():
        rectangle = Rectangle(
            (x - width / 2, y - depth / 2),
            width,
            depth,
            angle=np.degrees(angle),
            rotation_point='center',
            fill=False,
            ec=PROPOSAL,
        )
        axes.add_patch(rectangle)


def _draw_askers(axes: Axes, sample: Any) -> None:
    """Draw the asker and the model's guess from above, each with an arrow of a meter."""
    in_meters: Any = dict(angles='xy', scale_units='xy', scale=1, width=0.012)
    for name, color in _POSES.items():
        if name not in sample:
            continue
        place, ahead = _stand(sample.get(name))
        x, y, _ = place
        axes.quiver(x, y, ahead[0], ahead[1], color=color, **in_meters)
        axes.plot(x, y, 'o', color=color, markeredgecolor='white', markersize=9)


def draw_corner(axes: Axes, points: Any, sample: Any) -> None:
    """Draw a room in 3-D from above a corner, without its ceiling and the two near walls.

    Args:
        axes (Axes): Where to draw.
        points (np.ndarray | Tensor): See :func:`draw_room`.
        sample (VisionLanguageDataSample): Its proposals, the asker's pose and the
            prediction of it are drawn where they are known.
    """
    points = np.asarray(points, dtype=np.float64)
    floor = np.percentile(points[:, 2], 1)  # a few points may lie below it
    parts = [_points_within(points, floor), _boxes(sample), *_askers(sample, floor)]
    solids = _turned_to_eye(_joined(parts))
    reach = np.abs(solids.centers[:, :2]).max(axis=0)
    right, top = 1.06 * np.maximum(reach, _PERSON)
    draw_solids(axes, solids, (float(right), float(top)))
    without_ticks(axes)


def _turned_to_eye(solids: Solids) -> Solids:
    """Return solids in the frame of the eye, with the middle of the balls at the origin."""
    view = view_axes()
    centers = solids.centers @ view.T
    middle = (centers.max(axis=0) + centers.min(axis=0)) / 2
    # Columns of a rod: start (3), end (3), then the radii.
    starts, ends, radii = np.split(solids.rods, [3, 6], axis=1)
    rods = np.hstack((starts @ view.T - middle, ends @ view.T - middle, radii))
    return Solids(
        centers - middle, solids.radii, solids.colors, rods, solids.rod_colors
    )


def _joined(parts: Sequence[Solids]) -> Solids:
    """Join solids to one picture."""
    return Solids(
        np.concatenate([part.centers for part in parts]),
        np.concatenate([part.radii for part in parts]),
        np.concatenate([part.colors for part in parts]),
        np.concatenate([part.rods for part in parts]),
        np.concatenate([part.rod_colors for part in parts]),
    )


def _points_within(points: np.ndarray, floor: float) -> Solids:
    """Return the points of a room as balls, without what hides it from the eye."""
    x, y, z = points[:, :3].T
    # The eye is at the side of large x and small y.
    is_near = (x > x.max() - _NEAR_WALL) | (y < y.min() + _NEAR_WALL)
    is_hiding = is_near & (z > floor + _SKIRTING)
    is_below_ceiling = z < floor + _CUT
    is_shown = is_below_ceiling & ~is_hiding
    if not is_shown.any():
        is_shown = is_below_ceiling
    shown = points[is_shown]
    step = math.ceil(len(shown) / _MOST_BALLS)
    shown = shown[::step]
    radius = min(_POINT, 2.0 / np.sqrt(len(shown)))
    radii = np.full(len(shown), radius)
    return Solids(shown[:, :3], radii, _colors_of(shown))


def _askers(sample: Any, floor: float) -> list[Solids]:
    """Return the asker and the model's guess, each a ball with an arrow of a meter."""
    people = []
    for name, color in _POSES.items():
        if name not in sample:
            continue
        place, ahead = _stand(sample.get(name))
        place = np.array([place[0], place[1], floor + 0.5])
        neck = place + 0.7 * ahead
        tip = place + ahead
        shaft = [*place, *neck, _SHAFT, _SHAFT]
        head = [*neck, *tip, _TIP, 0.0]
        shade = np.array([to_rgb(color)])
        person = Solids(
            centers=place[None],
            radii=np.array([_PERSON]),
            colors=shade,
            rods=np.array([shaft, head]),
            rod_colors=np.repeat(shade, 2, axis=0),
        )
        people.append(person)
    return people


def _stand(pose: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return where an asker stands and looks, ``[3]`` and a unit vector ``[3]``."""
    place, turn = np.split(pose.double().cpu().numpy(), [3])
    return place, Rotation.from_quat(turn).apply(FORWARD)


def _boxes(sample: Any) -> Solids:
    """Return the edges of each likely proposal as thin rods."""
    rods: list[list[float]] = []
    if 'pred_boxes' in sample:
        for box in clear_boxes(sample).double().cpu().numpy():
            rods += _edges_of(box)
    edges = np.array(rods).reshape(-1, 8)
    nothing = np.zeros((0, 3))
    colors = np.tile(to_rgb(PROPOSAL), (len(edges), 1))
    return Solids(nothing, np.zeros(0), nothing, edges, colors)


def _edges_of(box: np.ndarray) -> list[list[float]]:
    """Return the twelve edges of a box ``[7]`` as rods."""
    center, size = box[:3], box[3:6]
    turn = Rotation.from_euler('z', box[6]).as_matrix()
    rods = []
    for a, b in itertools.combinations(_CORNERS, 2):
        # An edge joins corners that differ in one coordinate.
        if np.count_nonzero(a != b) == 1:
            start = center + turn @ (a * size / 2)
            end = center + turn @ (b * size / 2)
            rods.append([*start, *end, _EDGE, _EDGE])
    return rods


#: Corners of a cube of side 2.
_CORNERS = [np.array(signs) for signs in itertools.product((-1.0, 1.0), repeat=3)]


def clear_boxes(sample: Any) -> torch.Tensor:
    """Return the likely proposals ``[M, 7]``, without those that overlap likelier ones."""
    likely = sample.pred_box_scores >= _SCORE
    boxes = sample.pred_boxes[likely].float()
    scores = sample.pred_box_scores[likely].float()
    center = boxes[:, :2]
    half = boxes[:, 3:5] / 2
    corners = torch.cat((center - half, center + half), dim=1)
    return boxes[nms(corners, scores, _OVERLAP)]


def draw_sample(points: Any, sample: Any, vocabulary: Sequence[str]) -> Figure:
    """Draw a model's answer to a question: the room from two views, and bars of the best answers.

    Args:
        points (np.ndarray | Tensor, optional): See :func:`draw_room`; None for stored
            objects.
        sample (VisionLanguageDataSample): With its two texts and predictions.
        vocabulary (Sequence[str]): The answers.
    """
    columns = 1 if points is None else 3
    figure = Figure(
        (4.1 * columns, 4.6), dpi=110, facecolor='white', layout='constrained'
    )
    *views, bars = figure.subplots(1, columns, squeeze=False)[0]
    texts = [textwrap.fill(text, 45 * columns) for text in sample.text]
    figure.suptitle('\n'.join(texts), fontsize=10, parse_math=False)
    if points is not None:
        plan, corner = views
        draw_room(plan, points, sample)
        plan.set_xlabel(_KEY, fontsize=9)
        draw_corner(corner, points, sample)
    _draw_answers(bars, sample, vocabulary)
    return figure


def _draw_answers(axes: Axes, sample: Any, vocabulary: Sequence[str]) -> None:
    """Draw bars of the best answers, right ones in another color, and the truth below."""
    truth = sample.get('gt_answers') or ()
    names = []
    scores = []
    is_right = []
    for answer, score in best(sample.pred_scores, vocabulary):
        names.append(textwrap.shorten(answer, 26, placeholder='…'))
        scores.append(score)
        is_right.append(answer in truth)
    draw_bars(axes, names, np.array(scores), is_right)
    if truth:
        text = f'truth: {", ".join(dict.fromkeys(truth))}'
        axes.set_xlabel(text, fontsize=9, parse_math=False)


class RoomPicture(Picture):
    """A room from above, and tokens of objects as dots in their places.

    Args:
        points (np.ndarray, optional): See :func:`draw_room`; None for stored objects.
        sample (VisionLanguageDataSample): With predictions.
        places (np.ndarray): float ``[K, 2]``, the centers of the objects.
        words (dict[str, list[str]]): The words of ``situation`` and ``question``.
    """

    side = 2.3

    def __init__(
        self, points: Any, sample: Any, places: np.ndarray, words: dict[str, list[str]]
    ) -> None:
        self.points = points
        self.sample = sample
        self.places = places
        self.words = words
        lines = [textwrap.fill(' '.join(text), 46) for text in words.values()]
        self.caption = '\n'.join(lines)

    def draw_input(self, axes: Axes, time: int = 0) -> None:
        """Draw the room with its proposals and the asker; without a room, the words."""
        if self.points is not None:
            draw_room(axes, self.points, self.sample)
            return
        shades = {name: ['white'] * len(words) for name, words in self.words.items()}
        self._draw_words(axes, shades)

    def draw_values(
        self, axes: Axes, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Color objects in their places, or words; of a joint sequence, objects alone."""
        shades = colormaps[colors](tokens.norm()(tokens.values))
        for name, words in self.words.items():
            is_of_text = f'{name}_layers' in tokens.module
            is_of_objects = 'object_' in tokens.module
            if is_of_text and not is_of_objects:
                self._draw_words(axes, {name: shades[: len(words)]})
                return
        values = tokens.values[: len(self.places)]
        order = np.argsort(values)  # large values over small ones
        order = order[np.isfinite(values[order])]
        if self.points is not None:
            draw_room(axes, self.points)
        x, y = self.places[order].T
        axes.scatter(
            x, y, c=shades[order], s=30, linewidths=0.5, edgecolors='.25', zorder=3
        )
        without_ticks(axes)

    def _draw_words(self, axes: Axes, shades: dict) -> None:
        """Draw texts below each other, their words as boxes.

        Args:
            axes (Axes): Where to draw.
            shades (dict): Name of a text -> the color of each of its words.
        """
        top = 0.0
        for name, colors in shades.items():
            places, size, height = flow(self.words[name], self.side, 1.5)
            draw_words(axes, self.words[name], places, size, colors, top, self.side)
            top += height + 0.1
        axes.set(xlim=(0, self.side), ylim=(self.side, 0), aspect='equal')
        without_ticks(axes)
