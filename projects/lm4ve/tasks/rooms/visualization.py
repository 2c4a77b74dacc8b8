"""Pictures of rooms: views from above and from a corner, answers, and tokens of objects.

Points are projected here and drawn by matplotlib, so that every machine draws the same
picture and none needs a window.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from mmengine.model import is_model_wrapper
from scipy.spatial.transform import Rotation
from torch import Tensor

from lm4ve.registry import HOOKS, VISUALIZERS
from lm4ve.tasks.base.analysis import numbered
from lm4ve.tasks.base.language.rankings import Ranking, best, draw_bars
from lm4ve.tasks.base.language.words import draw_words, flow
from lm4ve.tasks.base.pictures import (
    Picture,
    PredictionVisualizationHook,
    PredictionVisualizer,
    TokenMap,
    seen_from,
    to_image,
    without_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The asker looks along minus x of their own frame (SQA3D's utils/visualize_data.py).
FORWARD = (-1.0, 0.0, 0.0)
PROPOSAL, ASKER, GUESS = '#ff7f0e', '#d62728', '#1f5fd0'
_KEY = 'red: asker, blue: predicted asker, orange: proposals'
#: The direction towards the eye in the corner view: high, so that walls hide little.
CORNER = (1.0, -1.35, 1.75)
#: In meters: nothing is drawn higher above the floor, since ceilings hide rooms; how far walls
#: towards the eye reach into the room.
_CUT, _WALL = 2.2, 0.25
#: Proposals with at least this score are drawn, at most so many, if they overlap less.
_SCORE, _MOST, _OVERLAP = 0.5, 40, 0.25
#: The edges of a box between its corners.
_EDGES = [(i, (i + 1) % 4) for i in range(4)]
_EDGES += [(i + 4, j + 4) for i, j in _EDGES] + [(i, i + 4) for i in range(4)]
#: The height of the words below a room, in inches.
_BAND = 1.5


@dataclass
class Room:
    """The parts of a room that are drawn, all in one frame with z up, in meters.

    Attributes:
        points (np.ndarray): float ``[P, 3]``.
        colors (np.ndarray): float ``[P, 3]`` in 0 to 1.
        boxes (np.ndarray): float ``[K, 7]``: center, size, angle around z.
        pose (np.ndarray, optional): The asker's place, and a quaternion x, y, z, w: ``[7]``.
        guess (np.ndarray, optional): The prediction of ``pose``, ``[7]``.
    """

    points: np.ndarray
    colors: np.ndarray
    boxes: np.ndarray
    pose: np.ndarray | None = None
    guess: np.ndarray | None = None


def room_of(points: Tensor | np.ndarray, sample: Any) -> Room:
    """Collect a room and the predictions for it.

    Args:
        points (Tensor | np.ndarray): ``[P, 3 + F]``; of six columns and more, columns 3 to 5
            are red, green and blue from 0 to 255. Points without colors are shaded by height.
        sample (VisionLanguageDataSample): May have ``gt_pose``, ``pred_pose``,
            ``pred_boxes`` and ``pred_box_scores``.
    """
    rows = _array(points)
    if rows.shape[1] >= 6:
        colors = np.clip(rows[:, 3:6] / 255, 0, 1)
    else:
        height = rows[:, 2] - rows[:, 2].min()
        colors = np.repeat(0.35 + 0.5 * height[:, None] / max(height.max(), 1e-9), 3, axis=1)
    boxes = np.zeros((0, 7))
    if 'pred_boxes' in sample:
        boxes = clear_boxes(_array(sample.pred_boxes), _array(sample.pred_box_scores))
    poses = [_array(sample.get(k)) if k in sample else None for k in ('gt_pose', 'pred_pose')]
    return Room(rows[:, :3], colors, boxes, *poses)


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def clear_boxes(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Suppress boxes that overlap a box of a higher score; return the others, best first.

    Args:
        boxes (np.ndarray): ``[K, 7]``.
        scores (np.ndarray): ``[K]``, 0 to 1.

    Returns:
        np.ndarray: ``[M, 7]`` with scores of at least 0.5. Overlap is the intersection over
        union of boxes, without their angles.
    """
    low, high = boxes[:, :3] - boxes[:, 3:6] / 2, boxes[:, :3] + boxes[:, 3:6] / 2
    volume = np.prod(np.maximum(boxes[:, 3:6], 0), axis=1)
    kept: list[int] = []
    for i in np.argsort(-scores, kind='stable')[: int((scores >= _SCORE).sum())]:
        common = np.minimum(high[i], high[kept]) - np.maximum(low[i], low[kept])
        common = np.prod(np.maximum(common, 0), axis=1)
        if (common < _OVERLAP * (volume[i] + volume[kept] - common)).all():
            kept.append(int(i))
    return boxes[kept[:_MOST]]


def corners_of(box: np.ndarray) -> np.ndarray:
    """Return the corners of a box ``[7]``, ``[8, 3]``: below, then above, each in a round."""
    around = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    corners = np.array([(*xy, z) for z in (-0.5, 0.5) for xy in around]) * box[3:6]
    return corners @ Rotation.from_euler('z', box[6]).as_matrix().T + box[:3]


def heading_of(pose: np.ndarray) -> np.ndarray:
    """Return the horizontal direction of sight of a pose ``[7]``, ``[3]`` of length 1."""
    turn = pose[3:7] if np.linalg.norm(pose[3:7]) > 1e-6 else (0, 0, 0, 1)
    ahead = Rotation.from_quat(turn).apply(FORWARD) * (1, 1, 0)
    length = np.linalg.norm(ahead)
    return ahead / length if length > 1e-6 else np.array(FORWARD)


# ---------------------------------------------------------------------------- views
def draw_room(
    axes: 'Axes', room: Room, eye: Sequence[float] | None = None, faded: bool = False
) -> None:
    """Draw a room in parallel projection, without its ceiling.

    Args:
        axes (Axes): Where to draw.
        room (Room): What to draw.
        eye (Sequence[float], optional): The direction towards the eye. Default: a plan, x to
            the right and y up.
        faded (bool): Points alone, pale and gray, as a background.
    """
    view = np.eye(3) if eye is None else seen_from(eye)
    points, colors = room.points, room.colors
    floor = np.percentile(points[:, 2], 1)  # a few points may lie below it
    (x, y, _), (u, v, _) = low, high = points.min(axis=0), points.max(axis=0)
    shown = points[:, 2] < floor + _CUT
    if eye is not None:  # walls towards the eye hide the room
        walls = np.where(np.array(eye[:2]) > 0, high[:2], low[:2])
        near = (np.abs(points[:, :2] - walls) < _WALL).any(axis=1)
        shown &= ~(near & (points[:, 2] > floor + 0.15))
    if faded:
        colors = np.repeat(0.55 + 0.4 * (colors @ [0.299, 0.587, 0.114])[:, None], 3, axis=1)
    ground = np.array([(x, y, floor), (u, y, floor), (u, v, floor), (x, v, floor)]) @ view.T
    axes.add_patch(Polygon(ground[:, :2], facecolor='#f1efea', lw=0, zorder=0))
    seen = points[shown] @ view.T
    order = np.argsort(seen[:, 2], kind='stable')
    width, height = axes.figure.get_size_inches() * axes.get_position().size
    size = float(np.clip(3.2 * 72**2 * width * height / max(len(order), 1), 0.8, 24.0))
    axes.scatter(*seen[order, :2].T, c=colors[shown][order], s=size, linewidths=0)
    if not faded:
        _draw_predictions(axes, room, view, floor)
    axes.set_aspect('equal', adjustable='datalim')
    without_ticks(axes)


def _draw_predictions(axes: 'Axes', room: Room, view: np.ndarray, floor: float) -> None:
    """Draw the boxes of proposals, and the asker: a mark, a cone of sight, and an arrow."""
    for box in room.boxes:
        corners = (corners_of(box) @ view.T)[:, :2]
        axes.add_collection(LineCollection(corners[_EDGES], colors=PROPOSAL, linewidths=0.9))
    for pose, color, style in ((room.guess, GUESS, ':'), (room.pose, ASKER, '-')):
        if pose is None or not np.isfinite(pose).all():
            continue
        turns = Rotation.from_euler('z', [[-30], [0], [30]], degrees=True)
        left, ahead, right = turns.apply(heading_of(pose))
        feet = (*pose[:2], floor)
        stops = [feet, pose[:3], *(pose[:3] + 1.3 * a for a in (left, right)), pose[:3] + ahead]
        feet, head, *sides, tip = (np.array(stops) @ view.T)[:, :2]
        axes.add_patch(Polygon([head, *sides], facecolor=color, alpha=0.38, lw=0, zorder=2))
        axes.plot(*np.stack([feet, head]).T, color=color, lw=2.2, ls=style)
        look = dict(arrowstyle='-|>', color=color, lw=2.0, linestyle=style, mutation_scale=13)
        axes.annotate('', tip, head, arrowprops=dict(look, shrinkA=0, shrinkB=0))
        axes.plot(*head, 'o', color=color, markeredgecolor='white', markersize=9)


# --------------------------------------------------------------------------- answers
def draw_answer(
    room: Room | None, situation: str, question: str, ranking: Ranking, truth: Sequence[str] = ()
) -> Figure:
    """Draw a room from above and from a corner, beside bars of answers.

    Args:
        room (Room, optional): None for a model that reads stored objects: bars alone.
        situation (str): The situation.
        question (str): The question.
        ranking (Sequence[tuple[str, float]]): Answers with scores, best first.
        truth (Sequence[str]): The right answers; their bars are green.
    """
    widths = (3.5,) if room is None else (3.3, 4.1, 3.5)
    letters = int(sum(widths) * 11)
    figure = Figure((sum(widths) + 0.6, 4.3), dpi=110, facecolor='white', layout='constrained')
    *views, bars = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    lines = [textwrap.fill(text, letters) for text in (situation, question)]
    figure.suptitle('\n'.join(lines), fontsize=10, parse_math=False)
    for axes, eye in zip(views, (None, CORNER), strict=False):
        draw_room(axes, room, eye)
    names = [textwrap.shorten(name, 26, placeholder='…') for name, _ in ranking]
    scores = np.array([score for _, score in ranking])
    draw_bars(bars, names, scores, [name in truth for name, _ in ranking])
    notes = [_KEY] if views else []
    if truth:
        notes.append(f'truth: {", ".join(dict.fromkeys(truth))}')
    figure.supxlabel('; '.join(notes), fontsize=9, parse_math=False)
    return figure


def draw_sample(
    points: Tensor | np.ndarray | None, sample: Any, vocabulary: Sequence[str]
) -> np.ndarray:
    """Draw a model's answer to a question about a room, uint8 ``[H, W, 3]`` RGB.

    Args:
        points (Tensor | np.ndarray, optional): ``[P, 3 + F]``, see :func:`room_of`; None for
            a model that reads stored objects.
        sample (VisionLanguageDataSample): With its two texts and predictions.
        vocabulary (Sequence[str]): The answers.
    """
    room = None if points is None else room_of(points, sample)
    ranking = best(sample.pred_scores, vocabulary)
    return to_image(draw_answer(room, *sample.text, ranking, sample.get('gt_answers') or ()))


@VISUALIZERS.register_module()
class RoomVisualizer(PredictionVisualizer):
    """MMEngine's visualizer, with its arguments, for answered questions about rooms."""

    def add_datasample(
        self,
        name: str,
        points: np.ndarray | None,
        data_sample: Any,
        vocabulary: Sequence[str],
        **options: Any,
    ) -> np.ndarray:
        """Draw a room with its question and the best answers; send it to the backends.

        Args:
            name (str): The picture's name.
            points, data_sample, vocabulary: See :func:`draw_sample`.
            **options: Of :meth:`PredictionVisualizer.present`.

        Returns:
            np.ndarray: uint8 ``[H, W, 3]``, RGB.
        """
        return self.present(name, draw_sample(points, data_sample, vocabulary), **options)


@HOOKS.register_module()
class RoomVisualizationHook(PredictionVisualizationHook):
    """Draws answered questions about rooms in validation and testing.

    Args:
        interval (int): Every n-th question.
        **kwargs: Passed to :class:`PredictionVisualizationHook`.
    """

    def __init__(self, interval: int = 5000, **kwargs: Any) -> None:
        super().__init__(interval=interval, **kwargs)

    def draw(self, runner, mode: str, number: int, index: int, batch: Any, sample: Any) -> None:
        """Draw a question with its room and its best answers."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        rooms = batch['inputs'].get('points')
        points = None if rooms is None else rooms[index]
        name = f'{mode}_{numbered(number, sample.get("scene_id"))}'
        options = self.options(runner, f'{name}_{runner.iter}')
        runner.visualizer.add_datasample(name, points, sample, model.head.vocabulary, **options)


# ---------------------------------------------------------------------------- tokens
class RoomPicture(Picture):
    """A room from above, and tokens of objects as dots in their places.

    Objects without a known place (stored features) are squares in the order of the file.

    Args:
        room (Room, optional): None for a model that reads stored objects.
        places (np.ndarray, optional): float ``[K, 3]``, the centers of the objects.
        words (dict[str, list[str]]): The words of ``situation`` and ``question``.
    """

    side = 2.3

    def __init__(
        self, room: Room | None, places: np.ndarray | None, words: dict[str, list[str]]
    ) -> None:
        self.room, self.places, self.words = room, places, words
        self.caption = '\n'.join(textwrap.fill(' '.join(w), 46) for w in words.values())

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        """Draw the room with its proposals and the asker; without a room, the words."""
        if self.room is None:
            self._draw_words(axes, {k: ['white'] * len(v) for k, v in self.words.items()})
        else:
            draw_room(axes, self.room)

    def draw_values(self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Color objects in their places, or words; of a joint sequence, objects alone."""
        shades = colormaps[colors](tokens.norm()(tokens.values))
        for name, words in self.words.items():
            if f'{name}_layers' in tokens.module and 'object_' not in tokens.module:
                return self._draw_words(axes, {name: shades[: len(words)]})
        values = tokens.values[: tokens.grid[0]]
        order = np.argsort(values)  # large values over small ones
        order = order[np.isfinite(values[order])]
        if self.room is None or self.places is None:
            columns = int(np.ceil(np.sqrt(len(values))))
            for i in order:
                corner = i % columns + 0.05, i // columns + 0.05
                axes.add_patch(Rectangle(corner, 0.9, 0.9, facecolor=shades[i], edgecolor='.6'))
            axes.set(xlim=(0, columns), ylim=(columns, 0), aspect='equal')
            return without_ticks(axes)
        draw_room(axes, self.room, faded=True)
        limits = dict(xlim=axes.get_xlim(), ylim=axes.get_ylim())
        dots = dict(s=26, linewidths=0.5, edgecolors='.25', zorder=3)
        axes.scatter(*self.places[order, :2].T, c=shades[order], **dots)
        axes.set(**limits)
        return None

    def _draw_words(self, axes: 'Axes', shades: dict) -> None:
        top = 0.0
        for name, colors in shades.items():
            places, size, height = flow(self.words[name], self.side, _BAND)
            draw_words(axes, self.words[name], places, size, colors, top, self.side)
            top += height + 0.1
        axes.set(xlim=(0, self.side), ylim=(self.side, 0), aspect='equal')
        without_ticks(axes)
