"""The best answers to a question, as plain data and as bars in a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

#: Answers with their scores, best first.
Ranking = Sequence[tuple[str, float]]
#: How many answers, captions or images are drawn.
SHOWN = 5
#: Colors of bars, and of those whose name is right.
BAR = '#4c78a8'
TRUE = '#1a8f3c'


def best(
    scores: Tensor, names: Sequence[Any], count: int = SHOWN
) -> list[tuple[Any, float]]:
    """Return the names with the highest scores, best first.

    Args:
        scores (Tensor): ``[A]``.
        names (Sequence): A of them.
        count (int): At most so many.
    """
    top_scores, indices = scores.float().topk(min(count, len(names)))
    ranking = []
    for index, score in zip(indices, top_scores, strict=True):
        ranking.append((names[int(index)], float(score)))
    return ranking


def draw_bars(
    axes: Any, names: Sequence[str], scores: np.ndarray, right: Sequence[bool] = ()
) -> None:
    """Draw scores as bars, the first one on top, green where a name is right.

    Args:
        axes (Axes): Where to draw.
        names (Sequence[str]): N of them, perhaps of several lines.
        scores (np.ndarray): float ``[N]``.
        right (Sequence[bool]): N of them, or none.
    """
    colors = [BAR] * len(names)
    for index, is_right in enumerate(right):
        if is_right:
            colors[index] = TRUE
    positions = range(len(names))
    bars = axes.barh(positions, scores, color=colors, height=0.6)
    labels = [format_score(score) for score in scores]
    axes.bar_label(bars, labels, padding=4, fontsize=8.5)
    axes.set_yticks(positions, names, fontsize=9, parse_math=False)
    axes.set_xlim(*_limits(scores))
    # Fewer than three bars would be thick.
    axes.set_ylim(max(len(names), 3) - 0.5, -0.5)
    axes.set_xticks([])
    axes.axvline(0, color='.4', lw=0.8)
    axes.tick_params(axis='y', length=0)
    axes.spines[:].set_visible(False)


def _limits(scores: np.ndarray) -> tuple[float, float]:
    """Return the ends of the axis of scores, with room for labels beside the bars.

    For probabilities it reaches from 0 to 1, else from 0 to the scores that are farthest
    from it.
    """
    low = min(scores.min(), 0.0)
    high = max(scores.max(), 0.0)
    if low == 0.0 and high <= 1.0:
        high = 1.0
    room = 0.18 * (high - low)
    if low < 0:
        low -= room
    return low, high + room


def format_score(score: float) -> str:
    """Write a score: probabilities in percent, others with two digits."""
    if 0 <= score <= 1:
        return f'{100 * score:.1f} %'
    return f'{score:.2f}'
