"""Pictures of rooms: plan and corner view with asker and proposals, answers, tokens of objects."""

import itertools
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
PROPOSAL, ASKER, GUESS = '#ff7f0e', '#d62728', '#1f5fd0'
_KEY = 'red: asker, blue: predicted asker, orange: proposals'
#: Nothing is drawn higher above the floor, in meters, since ceilings hide rooms.
_CUT = 2.2
#: Proposals with at least this score are drawn if they overlap better ones by less than
#: this.
_SCORE, _OVERLAP = 0.5, 0.25
#: Corner view: at most so many points, since each is a ball; radii in meters, of points
#: at most.
_MOST_BALLS = 20_000
_POINT, _EDGE, _SHAFT, _TIP, _PERSON = 0.045, 0.012, 0.035, 0.11, 0.14
#: Points this close to the near walls hide the room and are left out, in meters, above
#: the floor.
_NEAR_WALL, _SKIRTING = 0.2, 0.1


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
    colors = np.clip(shown[:, 3:6] / 255, 0, 1) if shown.shape[1] >= 6 else '.5'
    size = np.clip(4e4 / max(len(shown), 1), 1, 24)
    known, alpha = ((), 0.25) if sample is None else (sample.keys(), 1)
    axes.scatter(shown[:, 0], shown[:, 1], c=colors, s=size, linewidths=0, alpha=alpha)
    if 'pred_boxes' in known:
        for x, y, _, width, depth, _, angle in clear_boxes(sample).tolist():
            corner = x - width / 2, y - depth / 2
            turned = dict(angle=np.degrees(angle), rotation_point='center')
            axes.add_patch(
                Rectangle(corner, width, depth, **turned, fill=False, ec=PROPOSAL)
            )
    for name, color in dict(pred_pose=GUESS, gt_pose=ASKER).items():
        if name in known:
            place, ahead = _stand(sample.get(name))
            in_meters: Any = dict(angles='xy', scale_units='xy', scale=1, width=0.012)
            axes.quiver(*place[:2], *ahead[:2], color=color, **in_meters)
            axes.plot(
                *place[:2], 'o', color=color, markeredgecolor='white', markersize=9
            )
    axes.set_aspect('equal', adjustable='datalim')
    without_ticks(axes)


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
    solids = _joined(
        [_points_within(points, floor), _boxes(sample), *_askers(sample, floor)]
    )
    view = view_axes()
    solids.centers = solids.centers @ view.T
    middle = (solids.centers.max(axis=0) + solids.centers.min(axis=0)) / 2
    solids.centers = solids.centers - middle
    starts, ends, radii = np.split(solids.rods, [3, 6], axis=1)
    solids.rods = np.hstack((starts @ view.T - middle, ends @ view.T - middle, radii))
    right, top = 1.06 * np.maximum(np.abs(solids.centers[:, :2]).max(axis=0), _PERSON)
    draw_solids(axes, solids, (float(right), float(top)))
    without_ticks(axes)


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
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    # The eye is at the side of large x and small y.
    is_near = (points[:, 0] > high[0] - _NEAR_WALL) | (
        points[:, 1] < low[1] + _NEAR_WALL
    )
    is_hiding = is_near & (points[:, 2] > floor + _SKIRTING)
    is_below_ceiling = points[:, 2] < floor + _CUT
    is_shown = is_below_ceiling & ~is_hiding
    if not is_shown.any():
        is_shown = is_below_ceiling
    shown = points[is_shown]
    shown = shown[:: -(-len(shown) // _MOST_BALLS)]  # every n-th, from n = 1
    colors = np.full((len(shown), 3), 0.5)
    if shown.shape[1] >= 6:
        colors = np.clip(shown[:, 3:6] / 255, 0, 1)
    radius = min(_POINT, 2.0 / np.sqrt(len(shown)))
    return Solids(shown[:, :3], np.full(len(shown), radius), colors)


def _askers(sample: Any, floor: float) -> list[Solids]:
    """Return the asker and the model's guess, each a ball with an arrow of a meter."""
    found = []
    for name, color in dict(pred_pose=GUESS, gt_pose=ASKER).items():
        if name not in sample.keys():
            continue
        place, ahead = _stand(sample.get(name))
        place = np.array([place[0], place[1], floor + 0.5])
        neck, tip = place + 0.7 * ahead, place + ahead
        arrow = np.array([[*place, *neck, _SHAFT, _SHAFT], [*neck, *tip, _TIP, 0.0]])
        shade = np.array([to_rgb(color)])
        person = Solids(
            place[None], np.array([_PERSON]), shade, arrow, np.repeat(shade, 2, axis=0)
        )
        found.append(person)
    return found


def _stand(pose: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return where an asker stands and looks, ``[3]`` and a unit vector ``[3]``."""
    place, turn = np.split(pose.double().cpu().numpy(), [3])
    return place, Rotation.from_quat(turn).apply(FORWARD)


def _boxes(sample: Any) -> Solids:
    """Return the edges of each likely proposal as thin rods."""
    rods = []
    if 'pred_boxes' in sample.keys():
        for box in clear_boxes(sample).double().cpu().numpy():
            turn = Rotation.from_euler('z', box[6]).as_matrix()
            for corners in _UNIT_EDGES:
                start, end = (
                    box[:3] + turn @ (corner * box[3:6] / 2) for corner in corners
                )
                rods.append([*start, *end, _EDGE, _EDGE])
    edges = np.array(rods).reshape(-1, 8)
    nothing = np.zeros((0, 3))
    colors = np.tile(to_rgb(PROPOSAL), (len(edges), 1))
    return Solids(nothing, np.zeros(0), nothing, edges, colors)


_CORNERS = [np.array(signs) for signs in itertools.product((-1.0, 1.0), repeat=3)]
#: Edges of a cube: pairs of corners that differ in one coordinate.
_UNIT_EDGES = [
    (a, b)
    for a, b in itertools.combinations(_CORNERS, 2)
    if np.count_nonzero(a != b) == 1
]


def clear_boxes(sample: Any) -> torch.Tensor:
    """Return the likely proposals ``[M, 7]``, without those that overlap likelier ones."""
    likely = sample.pred_box_scores >= _SCORE
    boxes, scores = (
        sample.pred_boxes[likely].float(),
        sample.pred_box_scores[likely].float(),
    )
    center, half = boxes[:, :2], boxes[:, 3:5] / 2
    return boxes[
        nms(torch.cat((center - half, center + half), dim=1), scores, _OVERLAP)
    ]


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
    names, scores = zip(*best(sample.pred_scores, vocabulary), strict=True)
    truth = sample.get('gt_answers') or ()
    short = [textwrap.shorten(name, 26, placeholder='…') for name in names]
    draw_bars(bars, short, np.array(scores), [name in truth for name in names])
    if truth:
        text = f'truth: {", ".join(dict.fromkeys(truth))}'
        bars.set_xlabel(text, fontsize=9, parse_math=False)
    return figure


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
        self.points, self.sample, self.places, self.words = (
            points,
            sample,
            places,
            words,
        )
        self.caption = '\n'.join(textwrap.fill(' '.join(w), 46) for w in words.values())

    def draw_input(self, axes: Axes, time: int = 0) -> None:
        """Draw the room with its proposals and the asker; without a room, the words."""
        if self.points is None:
            self._draw_words(
                axes, {k: ['white'] * len(v) for k, v in self.words.items()}
            )
        else:
            draw_room(axes, self.points, self.sample)

    def draw_values(
        self, axes: Axes, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Color objects in their places, or words; of a joint sequence, objects alone."""
        shades = colormaps[colors](tokens.norm()(tokens.values))
        for name, words in self.words.items():
            if f'{name}_layers' in tokens.module and 'object_' not in tokens.module:
                return self._draw_words(axes, {name: shades[: len(words)]})
        values = tokens.values[: len(self.places)]
        order = np.argsort(values)  # large values over small ones
        order = order[np.isfinite(values[order])]
        if self.points is not None:
            draw_room(axes, self.points)
        look: Any = dict(s=30, linewidths=0.5, edgecolors='.25', zorder=3)
        x, y = self.places[order].T
        axes.scatter(x, y, c=shades[order], **look)
        return without_ticks(axes)

    def _draw_words(self, axes: Axes, shades: dict) -> None:
        top = 0.0
        for name, colors in shades.items():
            places, size, height = flow(self.words[name], self.side, 1.5)
            draw_words(axes, self.words[name], places, size, colors, top, self.side)
            top += height + 0.1
        axes.set(xlim=(0, self.side), ylim=(self.side, 0), aspect='equal')
        without_ticks(axes)
