"""The plot of a study: accuracies, and differences of a block from the other heads."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lm4ve.study.cells import points_of_margin
from lm4ve.study.compare import Comparison
from lm4ve.study.heads.study import StudyResults
from lm4ve.study.statistics import confidence_interval

#: Verdict -> matplotlib's color of a difference; of others it is gray.
_VERDICT_COLORS = {'better': 'C2', 'worse': 'C3', 'equal': 'C4'}
_UNDECIDED_COLOR = '0.4'
_MARGIN_COLOR = '0.9'
#: Letters of a head's name on one line.
_NAME_WIDTH = 26
#: Room above the first row and below the last, in rows.
_ROOM = 0.6


def draw_study(
    comparisons: Sequence[Comparison],
    results: StudyResults,
    margin: float,
    title: str,
) -> Figure:
    """Draw accuracies with a point for each seed, and the differences of the block.

    Accuracies are on the left, differences on the right, a row for each head. Intervals
    end at 0 and 100 %.

    Args:
        comparisons (Sequence[Comparison]): Those of the block, at least one.
        results (StudyResults): The results of all heads.
        margin (float): The smallest difference that matters, in points.
        title (str): The title of the figure.
    """
    block = comparisons[0].variant
    places = {name: place for place, name in enumerate(results.accuracies)}
    height = 2.1 + 0.36 * len(places)
    figure = Figure(figsize=(10, height), layout='constrained')
    left, right = figure.subplots(1, 2, sharey='row')
    right.axvspan(-margin, margin, color=_MARGIN_COLOR)
    right.axvline(0, color='0.5', lw=0.8)
    for name, place in places.items():
        color = 'C1' if name == block else 'C0'
        _draw_accuracies(left, place, results.accuracies[name], color)
    for comparison in comparisons:
        _draw_difference(right, places[comparison.against], comparison)
    _label_axes(left, right, list(places), block)
    _end_at_100(left)
    # Below the axes, where it covers nothing.
    figure.legend(
        handles=_legend_handles(margin),
        loc='outside lower center',
        ncols=5,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _label_axes(left: Axes, right: Axes, names: Sequence[str], block: str) -> None:
    """Label the axes: a head's name at each row, and what is measured."""
    left.set_yticks(
        range(len(names)),
        [textwrap.fill(name, _NAME_WIDTH) for name in names],
        parse_math=False,  # a dollar sign is no formula
    )
    left.set_ylim(len(names) - 1 + _ROOM, -_ROOM)
    left.set_xlabel('test accuracy [%]: seeds, mean, 95 % interval', fontsize=9)
    right.set_xlabel(
        f"'{block}' minus the variant [points], with the interval that is judged",
        fontsize=9,
        parse_math=False,
    )


def _draw_accuracies(axes: Axes, y: int, values: np.ndarray, color: str) -> None:
    """Draw the accuracies of a head at height ``y``: a point for each seed, mean and interval."""
    interval = np.clip(confidence_interval(values), 0, 100)
    axes.plot(values, [y] * len(values), 'o', ms=4, alpha=0.35, c=color)
    axes.plot(interval, [y, y], c=color)
    axes.plot(values.mean(), y, '|', ms=16, mew=2, c=color)


def _draw_difference(axes: Axes, y: int, comparison: Comparison) -> None:
    """Draw a comparison at height ``y``: the difference and the interval that is judged."""
    color = _VERDICT_COLORS.get(comparison.verdict, _UNDECIDED_COLOR)
    interval = np.clip((comparison.low, comparison.high), -100, 100)
    axes.plot(interval, [y, y], lw=3, alpha=0.5, c=color)
    axes.plot(comparison.difference, y, 'o', ms=6, c=color)


def _end_at_100(axes: Axes) -> None:
    """Cut the x-axis of accuracies just outside of 0 and 100 %, so that no mark is beyond."""
    low, high = axes.get_xlim()
    low = max(low, -3)
    room = 0.04 * (100 - low)
    axes.set_xlim(low, min(high, 100 + room))


def _legend_handles(margin: float) -> list[Artist]:
    """Return what the legend explains: the margin, and the colors of verdicts."""
    within = f'within {points_of_margin(margin)}'
    handles: list[Artist] = [
        Patch(color=_MARGIN_COLOR, label=f'±{points_of_margin(margin)}')
    ]
    colors = [*_VERDICT_COLORS.values(), _UNDECIDED_COLOR]
    labels = ['better', 'worse', within, 'open']
    for color, label in zip(colors, labels, strict=True):
        handles.append(Line2D([], [], marker='o', c=color, label=label))
    return handles
