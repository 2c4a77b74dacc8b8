"""Rooms as pictures: from above and from a corner, with proposals and with who asks.

Points are projected here and drawn by matplotlib, so that every machine draws the same
picture and none needs a window.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Wedge
from scipy.spatial.transform import Rotation
from torch import Tensor

from lm4ve.tasks.base.language.rankings import Ranking, best, draw_bars
from lm4ve.tasks.base.pictures import seen_from, without_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Who asks looks along minus x of their own frame (SQA3D's utils/visualize_data.py).
FORWARD = (-1.0, 0.0, 0.0)
PROPOSAL, ASKER, GUESS, TRUE = '#ff7f0e', '#d62728', '#1f5fd0', '#1a8f3c'
_FLOOR = '#f1efea'
#: From where a room is seen, in its own axes; high, so that walls hide little.
_EYE = (1.0, -1.35, 1.75)
#: Meters above the floor from which on nothing is drawn: ceilings hide rooms.
_CUT = 2.2
#: Meters: walls towards the eye that are drawn faintly; size of who asks.
_FAINT, _BODY = 0.25, 0.22
#: Proposals with at least this score are drawn, at most so many, if they overlap less.
_SCORE, _MOST, _OVERLAP = 0.5, 40, 0.25


@dataclass
class Room:
    """What is drawn of a room, all in one frame with z up, in meters.

    Attributes:
        points (np.ndarray): float ``[P, 3]``.
        colors (np.ndarray): float ``[P, 3]`` in 0 to 1.
        boxes (np.ndarray): float ``[K, 7]``: center, size, angle around z.
        pose (np.ndarray, optional): Where somebody stands, and a quaternion x, y, z, w: ``[7]``.
        guess (np.ndarray, optional): What the model predicts of it, ``[7]``.
    """

    points: np.ndarray
    colors: np.ndarray
    boxes: np.ndarray
    pose: np.ndarray | None = None
    guess: np.ndarray | None = None

    @property
    def floor(self) -> float:
        """The height of the floor; a few points may lie below it."""
        return float(np.percentile(self.points[:, 2], 1))


def room_of(points: Tensor | np.ndarray, sample: object) -> Room:
    """Collect what a sample says of its room.

    Args:
        points (Tensor | np.ndarray): ``[P, 3 + F]``; of six columns and more, columns 3 to 5
            are red, green and blue from 0 to 255. Without colors, height shades them.
        sample (VisionLanguageDataSample): With what is known of ``gt_pose``, ``pred_pose``,
            ``pred_boxes`` and ``pred_box_scores``.
    """
    rows = _array(points)
    if rows.shape[1] >= 6:
        colors = np.clip(rows[:, 3:6] / 255, 0, 1)
    else:
        height = rows[:, 2] - rows[:, 2].min()
        colors = np.repeat(0.35 + 0.5 * height[:, None] / max(height.max(), 1e-9), 3, axis=1)
    boxes, scores = sample.get('pred_boxes'), sample.get('pred_box_scores')
    kept = np.zeros((0, 7)) if boxes is None else clear_boxes(_array(boxes), _array(scores))
    poses = (sample.get(k) for k in ('gt_pose', 'pred_pose'))
    return Room(rows[:, :3], colors, kept, *(None if p is None else _array(p) for p in poses))


def clear_boxes(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keep the surest of boxes that overlap, best first.

    Args:
        boxes (np.ndarray): ``[K, 7]``.
        scores (np.ndarray): ``[K]``, 0 to 1.

    Returns:
        np.ndarray: ``[M, 7]`` with scores of at least 0.5. Overlap is volume in common by
        volume of both, of boxes that are not turned.
    """
    low, high = boxes[:, :3] - boxes[:, 3:6] / 2, boxes[:, :3] + boxes[:, 3:6] / 2
    volume = np.prod(np.maximum(boxes[:, 3:6], 0), axis=1)
    kept: list[int] = []
    for i in np.argsort(-scores, kind='stable'):
        if scores[i] < _SCORE or len(kept) == _MOST:
            break
        common = np.minimum(high[i], high[kept]) - np.maximum(low[i], low[kept])
        common = np.prod(np.maximum(common, 0), axis=1)
        if (common < _OVERLAP * (volume[i] + volume[kept] - common)).all():
            kept.append(int(i))
    return boxes[kept]


def corners_of(box: np.ndarray) -> np.ndarray:
    """Return the corners of a box ``[7]``, ``[8, 3]``: below, then above, each in a round."""
    around = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    corners = np.array([(*xy, z) for z in (-0.5, 0.5) for xy in around]) * box[3:6]
    return corners @ Rotation.from_euler('z', box[6]).as_matrix().T + box[:3]


def heading_of(pose: np.ndarray) -> np.ndarray:
    """Return where somebody looks, ``[3]`` of length 1, level; a pose without turn: ahead."""
    turn = pose[3:7]
    length = np.linalg.norm(turn)
    ahead = Rotation.from_quat(turn if length > 1e-6 else (0, 0, 0, 1)).apply(FORWARD)
    ahead[2] = 0.0
    length = np.linalg.norm(ahead)
    return ahead / length if length > 1e-6 else np.array(FORWARD)


# ---------------------------------------------------------------------------- views
def draw_from_above(axes: 'Axes', room: Room, faded: bool = False) -> None:
    """Draw a room as a plan: x to the right, y up; ceilings are left out.

    Args:
        axes (Axes): Where to draw.
        room (Room): What to draw.
        faded (bool): Gray and pale, for what is drawn on it; points alone.
    """
    shown = room.points[:, 2] < room.floor + _CUT
    points, colors = room.points[shown], room.colors[shown]
    if faded:
        gray = colors @ [0.299, 0.587, 0.114]
        colors = np.repeat(0.55 + 0.4 * gray[:, None], 3, axis=1)
    order = np.argsort(points[:, 2], kind='stable')
    axes.add_patch(Polygon(_floor_of(room)[:, :2], facecolor=_FLOOR, lw=0, zorder=0))
    _scatter(axes, points[order, :2], colors[order])
    places = [p[:2] for p, color, _ in _askers(room) if color == ASKER]
    _fit(axes, points[:, :2], places)
    if faded:
        return
    for box in room.boxes:
        axes.add_patch(Polygon(corners_of(box)[:4, :2], fill=False, edgecolor=PROPOSAL, lw=1.3))
    for pose, color, style in _askers(room):
        place, ahead = pose[:2], heading_of(pose)[:2]
        angle = np.degrees(np.arctan2(ahead[1], ahead[0]))
        sight = dict(facecolor=color, alpha=0.38, lw=0, zorder=2)
        axes.add_patch(Wedge(place, 1.3, angle - 30, angle + 30, **sight))
        _arrow(axes, place, place + 0.75 * ahead, color, style)
        axes.add_patch(Circle(place, _BODY * 0.6, facecolor=color, edgecolor='white', lw=0.8))


def draw_from_corner(axes: 'Axes', room: Room) -> None:
    """Draw a room in parallel projection from a high corner, walls towards it faintly."""
    view = seen_from(_EYE)
    shown = room.points[:, 2] < room.floor + _CUT
    points, colors = room.points[shown], room.colors[shown]
    near = np.zeros(len(points), dtype=bool)
    for axis, sign in ((0, 1), (1, -1)):
        edge = (sign * points[:, axis]).max()
        near |= (sign * points[:, axis] > edge - _FAINT) & (points[:, 2] > room.floor + 0.15)
    seen = points @ view.T
    order = np.argsort(seen[:, 2], kind='stable')
    shades = np.hstack([colors, np.where(near, 0.06, 1.0)[:, None]])
    floor = _floor_of(room) @ view.T
    axes.add_patch(Polygon(floor[:, :2], facecolor=_FLOOR, lw=0, zorder=0))
    _scatter(axes, seen[order, :2], shades[order])
    for box in room.boxes:
        ring = corners_of(box) @ view.T
        below, above = ring[:4, :2], ring[4:, :2]
        lines = [np.vstack([r, r[:1]]) for r in (below, above)]
        lines += [np.stack(pair) for pair in zip(below, above, strict=True)]
        axes.add_collection(LineCollection(lines, colors=PROPOSAL, linewidths=0.9))
    for pose, color, style in _askers(room):
        foot, head = pose[:3].copy(), pose[:3].copy()
        foot[2] = room.floor
        ahead = head + 0.75 * heading_of(pose)
        foot, head, ahead = (p @ view.T for p in (foot, head, ahead))
        axes.plot(*np.stack([foot, head])[:, :2].T, color=color, lw=2.2, ls=style)
        _arrow(axes, head[:2], ahead[:2], color, style)
        axes.add_patch(Circle(head[:2], _BODY * 0.55, facecolor=color, edgecolor='white', lw=0.8))
    places = [p[:3] @ view.T[:, :2] for p, color, _ in _askers(room) if color == ASKER]
    _fit(axes, seen[:, :2], places)


def _floor_of(room: Room) -> np.ndarray:
    """The corners of the floor, ``[4, 3]``: of sparse points, one does not see it."""
    (x, y, _), (u, v, _) = room.points.min(axis=0), room.points.max(axis=0)
    return np.array(
        [(x, y, room.floor), (u, y, room.floor), (u, v, room.floor), (x, v, room.floor)]
    )


def _askers(room: Room) -> list[tuple[np.ndarray, str, str]]:
    both = ((room.guess, GUESS, ':'), (room.pose, ASKER, '-'))
    return [(p, c, s) for p, c, s in both if p is not None and np.isfinite(p).all()]


def _arrow(axes: 'Axes', start: np.ndarray, end: np.ndarray, color: str, style: str) -> None:
    look = dict(arrowstyle='-|>', color=color, lw=2.0, linestyle=style, mutation_scale=13)
    axes.annotate('', end, start, arrowprops=dict(look, shrinkA=0, shrinkB=0))


def _scatter(axes: 'Axes', places: np.ndarray, colors: np.ndarray) -> None:
    """Draw points, as large as to leave few holes between them."""
    width, height = axes.figure.get_size_inches() * axes.get_position().size
    size = float(np.clip(3.2 * (72**2) * width * height / max(len(places), 1), 0.8, 24.0))
    axes.scatter(*places.T, c=colors, s=size, linewidths=0)


def _fit(axes: 'Axes', places: np.ndarray, others: Sequence[np.ndarray]) -> None:
    every = np.vstack([places, *(o[None] for o in others)])
    low, high = every.min(axis=0), every.max(axis=0)
    middle = (low + high) / 2
    width, height = axes.get_position().size * axes.figure.get_size_inches()
    reach = max((high[0] - low[0]) / width, (high[1] - low[1]) / height, 1e-6) * 1.06 / 2
    axes.set(
        xlim=(middle[0] - reach * width, middle[0] + reach * width),
        ylim=(middle[1] - reach * height, middle[1] + reach * height),
        aspect='equal',
    )
    without_ticks(axes)


# --------------------------------------------------------------------------- answers
def draw_answer(
    room: Room | None, situation: str, question: str, ranking: Ranking, truth: Sequence[str] = ()
) -> Figure:
    """Draw a room twice, beside bars of answers.

    Args:
        room (Room, optional): None of a model that reads stored objects: bars alone.
        situation (str): What the model was told of who asks.
        question (str): The question.
        ranking (Sequence[tuple[str, float]]): Answers with scores, best first.
        truth (Sequence[str]): What is right: green where it is among them, and said below.
    """
    panels = () if room is None else (3.3, 4.1)
    bars = 3.5
    width = 0.15 * (2 + len(panels)) + sum(panels) + bars
    letters = int(width * 11.5)
    told = textwrap.wrap(situation, int(letters * 1.12))[:3]
    asked = textwrap.wrap(question, letters)[:2]
    band = 0.24 * len(asked) + 0.19 * len(told) + 0.2
    height = 3.3 if panels else 2.2
    whole = band + height + 0.42
    figure = Figure(figsize=(width, whole), dpi=110, facecolor='white')
    plain = dict(va='top', parse_math=False)
    figure.text(0.15 / width, 1 - 0.1 / whole, '\n'.join(told), fontsize=9.5, color='.25', **plain)
    figure.text(
        *(0.15 / width, 1 - (0.14 + 0.19 * len(told)) / whole),
        '\n'.join(asked),
        fontsize=11.5,
        weight='bold',
        **plain,
    )
    x = 0.15
    for wide, draw in zip(panels, (draw_from_above, draw_from_corner), strict=False):
        place = (x / width, 0.38 / whole, wide / width, height / whole)
        draw(figure.add_axes(place), room)
        x += wide + 0.15
    names = [textwrap.shorten(name, 26, placeholder='…') for name, _ in ranking]
    # Letters of the longest name, in inches.
    left = x + 0.2 + 0.082 * max(len(n) for n in names)
    place = (left / width, 0.38 / whole, (width - 0.45 - left) / width, height / whole)
    scores = np.array([score for _, score in ranking])
    draw_bars(figure.add_axes(place), names, scores, [name in truth for name, _ in ranking])
    if truth:
        text = textwrap.shorten(f'truth: {", ".join(dict.fromkeys(truth))}', 40)
        figure.text(x / width, 0.1 / whole, text, fontsize=9, color=TRUE, parse_math=False)
    if room is not None:
        _legend(figure, room, 0.15 / width, 0.02 / whole)
    return figure


def draw_sample(
    points: Tensor | np.ndarray | None, sample: object, vocabulary: Sequence[str]
) -> Figure:
    """Draw what a model answered in a room.

    Args:
        points (Tensor | np.ndarray, optional): ``[P, 3 + F]``, see :func:`room_of`; None of
            a model that reads stored objects.
        sample (VisionLanguageDataSample): With its two texts and predictions.
        vocabulary (Sequence[str]): The answers.
    """
    room = None if points is None else room_of(points, sample)
    ranking = best(sample.pred_scores, vocabulary)
    return draw_answer(room, *sample.text, ranking, sample.get('gt_answers') or ())


def _legend(figure: Figure, room: Room, x: float, y: float) -> None:
    lines = []
    if room.pose is not None:
        lines.append(Line2D([], [], color=ASKER, lw=2.0, label='who asks, and where they look'))
    if room.guess is not None:
        lines.append(Line2D([], [], color=GUESS, lw=2.0, ls=':', label="the model's guess of it"))
    if len(room.boxes):
        lines.append(Line2D([], [], color=PROPOSAL, lw=1.3, label='proposals'))
    if lines:
        figure.legend(
            handles=lines,
            loc='lower left',
            bbox_to_anchor=(x, y),
            ncols=3,
            frameon=False,
            fontsize=8.5,
            borderpad=0.2,
            handlelength=1.8,
        )


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
