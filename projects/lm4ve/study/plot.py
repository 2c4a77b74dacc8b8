"""The plot of a study: scores of variants, and differences of one from the others."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lm4ve.study.cells import Metric
from lm4ve.study.compare import Comparison, Score
from lm4ve.study.table import row_of, words_of_gain

#: Verdict -> matplotlib's color of a difference; of others it is gray.
_VERDICT_COLORS = {'better': 'C2', 'worse': 'C3', 'equal': 'C4'}
_UNDECIDED_COLOR = '0.4'
_MARGIN_COLOR = '0.9'
#: Letters of a variant's name on one line.
_NAME_WIDTH = 26
#: Room above the first row and below the last, in rows.
_ROOM = 0.6


def draw_study(
    names: Sequence[str],
    reference: str,
    scores: Mapping[str, Score],
    comparisons: Sequence[Comparison],
    metric: Metric,
    margin: float,
    title: str,
) -> Figure:
    """Draw scores with a point for each seed, and the differences from the reference.

    Scores are on the left, differences on the right, a row for each variant. Shares end
    at 0 and 100 %. Every seed is drawn, since every seed counts.

    Args:
        names (Sequence[str]): The variants, from above.
        reference (str): The variant that is in each comparison.
        scores (Mapping[str, Score]): Variant -> its score, of those that have one.
        comparisons (Sequence[Comparison]): Those with the reference.
        metric (Metric): What the scores are.
        margin (float): The smallest difference that matters, in its unit.
        title (str): The title of the figure.
    """
    places = {name: place for place, name in enumerate(names)}
    height = 2.1 + 0.36 * len(places)
    figure = Figure(figsize=(10, height), layout='constrained')
    left, right = figure.subplots(1, 2, sharey='row')
    right.axvspan(-margin, margin, color=_MARGIN_COLOR)
    right.axvline(0, color='0.5', lw=0.8)
    bounds = (0, 100) if metric.unit == '%' else (-np.inf, np.inf)
    for name, place in places.items():
        if name in scores:
            color = 'C1' if name == reference else 'C0'
            _draw_scores(left, place, scores[name], color, bounds)
    for comparison in comparisons:
        name = row_of(comparison, reference)
        if name in places:
            _draw_difference(right, places[name], comparison, bounds)
    gain = words_of_gain(reference, comparisons)
    _label_axes(left, right, list(places), gain, metric)
    if metric.unit == '%':
        _end_at_100(left)
    # Below the axes, where it covers nothing.
    figure.legend(
        handles=_legend_handles(metric.margin(margin)),
        loc='outside lower center',
        ncols=5,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _label_axes(
    left: Axes, right: Axes, names: Sequence[str], gain: str, metric: Metric
) -> None:
    """Label the axes: a variant's name at each row, and what is measured."""
    left.set_yticks(
        range(len(names)),
        [textwrap.fill(name, _NAME_WIDTH) for name in names],
        parse_math=False,  # a dollar sign is no formula
    )
    left.set_ylim(len(names) - 1 + _ROOM, -_ROOM)
    left.set_xlabel(
        f'test {metric.with_unit}\nseeds, mean, 95 % interval',
        fontsize=9,
        parse_math=False,
    )
    unit = metric.unit_of_differences
    of_unit = f' [{unit}]' if unit else ''
    right.set_xlabel(
        f'gain of {gain}{of_unit}\nmean, interval that is judged',
        fontsize=9,
        parse_math=False,
    )


def _draw_scores(
    axes: Axes, y: int, score: Score, color: str, bounds: tuple[float, float]
) -> None:
    """Draw the score of a variant at height ``y``: a point for each seed, mean and interval."""
    interval = np.clip((score.low, score.high), *bounds)
    axes.plot(score.of_seeds, [y] * len(score.of_seeds), 'o', ms=4, alpha=0.35, c=color)
    axes.plot(interval, [y, y], c=color)
    axes.plot(score.mean, y, '|', ms=16, mew=2, c=color)


def _draw_difference(
    axes: Axes, y: int, comparison: Comparison, bounds: tuple[float, float]
) -> None:
    """Draw a comparison at height ``y``: the difference and the interval that is judged."""
    color = _VERDICT_COLORS.get(comparison.verdict, _UNDECIDED_COLOR)
    farthest = bounds[1]
    interval = np.clip((comparison.low, comparison.high), -farthest, farthest)
    axes.plot(interval, [y, y], lw=3, alpha=0.5, c=color)
    axes.plot(comparison.difference, y, 'o', ms=6, c=color)


def _end_at_100(axes: Axes) -> None:
    """Cut the x-axis of shares just outside of 0 and 100 %, so that no mark is beyond."""
    low, high = axes.get_xlim()
    low = max(low, -3)
    room = 0.04 * (100 - low)
    axes.set_xlim(low, min(high, 100 + room))


def _legend_handles(margin: str) -> list[Artist]:
    """Return what the legend explains: the margin, and the colors of verdicts."""
    handles: list[Artist] = [Patch(color=_MARGIN_COLOR, label=f'±{margin}')]
    colors = [*_VERDICT_COLORS.values(), _UNDECIDED_COLOR]
    labels = ['better', 'worse', f'within {margin}', 'open']
    for color, label in zip(colors, labels, strict=True):
        handles.append(Line2D([], [], marker='o', c=color, label=label))
    return handles
