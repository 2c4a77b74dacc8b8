"""The plot of a study: accuracies, and differences of a block from the other heads."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm4ve.ablation.statistics import confidence_interval
from lm4ve.probing.study import StudyResults
from lm4ve.probing.verdict import Comparison, points

#: Verdict -> matplotlib's color of a difference; of others it is gray.
_VERDICT_COLORS = {'better': 'C2', 'worse': 'C3', 'equal': 'C0'}
_UNDECIDED_COLOR = '0.4'


def draw_study(
    results: StudyResults, comparisons: Sequence[Comparison], margin: float, title: str
) -> Figure:
    """Draw accuracies with a point for each seed, and the differences of one block.

    Args:
        results (StudyResults): The results of all heads.
        comparisons (Sequence[Comparison]): The comparisons of one block.
        margin (float): The smallest difference that matters, in points.
        title (str): The title of the figure.
    """
    accuracies = results.accuracies
    blocks = [comparison.block for comparison in comparisons]
    block = blocks[0] if len(set(blocks)) == 1 else 'frozen'
    places = {name: place for place, name in enumerate(accuracies)}
    size = (10, 1.6 + 0.36 * len(accuracies))
    figure = Figure(figsize=size, layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    right.axvspan(-margin, margin, color='0.9', label=f'at most {points(margin)}')
    right.axvline(0, color='0.5', lw=0.8)
    for name, values in accuracies.items():
        color = 'C1' if name in blocks else 'C0'
        _draw_accuracies(left, places[name], values, color)
    for comparison in comparisons:
        _draw_difference(right, places[comparison.against], comparison)

    left.set_yticks(range(len(accuracies)), list(accuracies))
    left.invert_yaxis()
    left.set_xlabel('test accuracy [%]: seeds, mean, 95 % interval', fontsize=9)
    right.set_xlabel(
        f"'{block}' minus the variant [points], 95 % intervals:\n"
        'over seeds (thin), over seeds and pictures (wide)',
        fontsize=9,
    )
    right.legend(fontsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _draw_accuracies(axes: Axes, y: int, values: np.ndarray, color: str) -> None:
    """Draw the accuracies of a head at height ``y``: a point for each seed, mean and interval."""
    axes.plot(values, [y] * len(values), 'o', ms=4, alpha=0.35, c=color)
    if len(values) > 1:
        axes.plot(confidence_interval(values), [y, y], c=color)
    axes.plot(values.mean(), y, '|', ms=16, mew=2, c=color)


def _draw_difference(axes: Axes, y: int, comparison: Comparison) -> None:
    """Draw a comparison at height ``y``: the difference and its two intervals."""
    color = _VERDICT_COLORS.get(comparison.verdict, _UNDECIDED_COLOR)
    axes.plot(comparison.both, [y, y], lw=7, alpha=0.3, c=color, solid_capstyle='butt')
    axes.plot(comparison.seeds, [y, y], c=color)
    axes.plot(comparison.difference, y, 'o', ms=6, c=color)
