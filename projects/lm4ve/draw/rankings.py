"""The best answers to a question, as plain data and as bars in a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

#: Answers with their scores, best first.
Ranking = Sequence[tuple[str, float]]
#: How many answers, captions or images are drawn.
SHOWN = 5
BAR, TRUE = '#4c78a8', '#1a8f3c'


def best(
    scores: Tensor, names: Sequence[Any], count: int = SHOWN
) -> list[tuple[Any, float]]:
    """Return the names with the highest scores, best first.

    Args:
        scores (Tensor): ``[A]``.
        names (Sequence): A of them.
        count (int): At most so many.
    """
    found, places = scores.float().topk(min(count, len(names)))
    return [(names[int(i)], float(x)) for i, x in zip(places, found, strict=True)]


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
    colors = [TRUE if r else BAR for r in right or [False] * len(names)]
    bars = axes.barh(range(len(names)), scores, color=colors, height=0.6)
    axes.bar_label(bars, [number(s) for s in scores], padding=4, fontsize=8.5)
    axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    # Probabilities have one scale, other scores their own.
    low, high = min(scores.min(), 0.0), max(scores.max(), 0.0)
    high = 1.0 if low == 0.0 and high <= 1.0 else high
    room = 0.18 * (high - low)
    axes.set(
        xlim=(low - room * (low < 0), high + room),
        ylim=(max(len(names), 3) - 0.5, -0.5),
    )
    axes.set_xticks([])
    axes.axvline(0, color='.4', lw=0.8)
    axes.tick_params(axis='y', length=0)
    axes.spines[:].set_visible(False)


def number(score: float) -> str:
    """Write a score: probabilities in percent, others with two digits."""
    return f'{100 * score:.1f} %' if 0 <= score <= 1 else f'{score:.2f}'
