"""The plot of a grid: a point for each seed, the means and their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm4ve.study.cells import format_number
from lm4ve.study.statistics import Summary
from lm4ve.study.trainings.grid import Grid

#: What a metric begins with -> its unit, and the factor to it: mmaction2 reports
#: shares.
_UNITS = {
    'acc/': ('%', 100),
    'accuracy/': ('%', 1),
    'vqa/': ('%', 1),
    'retrieval/': ('%', 1),
    'sqa3d/': ('%', 1),
    'motion/min': ('m', 1),
}


class _Column(NamedTuple):
    """What is drawn of a variant, in the unit of the axis.

    Attributes:
        x (float): Its place on the horizontal axis.
        name (str): Its name.
        scores (np.ndarray): The score of each seed, float64 ``[n]``.
        mean (float): The mean over the seeds.
        below, above (float): How far the 95 % interval reaches from the mean.
    """

    x: float
    name: str
    scores: np.ndarray
    mean: float
    below: float
    above: float


def plot_grid(
    grid: Grid, scores: dict[str, dict[int, float]], summaries: Sequence[Summary]
) -> Figure:
    """Draw a point for each seed, the means and their 95 % intervals; a sweep as a line.

    Failed seeds (:func:`failed_seeds`) are written at the edge and do not stretch the
    axis.

    Args:
        grid (Grid): Names, title and metric.
        scores (dict[str, dict[int, float]]): Variant -> seed -> score.
        summaries (Sequence[Summary]): The summaries of the variants that have scores.
    """
    unit, factor = _unit_of(grid.metric)
    columns = _columns(grid, scores, summaries, factor)
    failed = failed_seeds([column.scores for column in columns])

    width = max(1.6 + 1.25 * len(columns), 4.8)
    figure = Figure(figsize=(width, 3.8), layout='constrained')
    axes = figure.subplots()
    for column, has_failed in zip(columns, failed, strict=True):
        axes.plot(
            [column.x] * len(column.scores), column.scores, 'o', ms=4, alpha=0.4, c='C0'
        )
        if column.name == grid.reference:
            axes.axhline(column.mean, color='C3', lw=0.8, ls=':')
        if has_failed.any():
            _name_failed(axes, column, has_failed)
    _draw_means(axes, columns, connected=grid.is_sweep)
    _limit_axis(axes, columns, failed)
    _label_axes(axes, grid, columns, unit)
    return figure


def failed_seeds(values: list[np.ndarray]) -> list[np.ndarray]:
    """Return which seeds failed: those ten typical deviations or more from the median.

    The median is that of their own variant. The typical deviation is the median of the
    deviations of all variants, which a few failures among few seeds do not change.

    Args:
        values (list[np.ndarray]): The scores of each variant, float64 ``[n]``.

    Returns:
        list[np.ndarray]: bool ``[n]`` for each variant.
    """
    deviations = [np.abs(scores - np.median(scores)) for scores in values]
    typical = np.median(np.concatenate(deviations))
    failed = []
    for deviation in deviations:
        if typical > 0:
            failed.append(deviation >= 10 * typical)
        else:
            failed.append(np.zeros(len(deviation), bool))
    return failed


def _unit_of(metric: str) -> tuple[str, int]:
    """Return the unit of a metric and the factor to it; ('', 1) for an unknown metric."""
    for beginning, (unit, factor) in _UNITS.items():
        if metric.startswith(beginning):
            return unit, factor
    return '', 1


def _columns(
    grid: Grid,
    scores: dict[str, dict[int, float]],
    summaries: Sequence[Summary],
    factor: int,
) -> list[_Column]:
    """Return what is drawn of each variant that has scores, from left to right.

    A variant's place is its ``x`` in a sweep, else its number in the grid.

    Args:
        grid, scores, summaries: See :func:`plot_grid`.
        factor (int): Multiplies scores, to bring them to the axis's unit.
    """
    places: dict[str, float] = {}
    for i, variant in enumerate(grid.variants):
        places[variant.name] = i
        if grid.is_sweep and variant.x is not None:
            places[variant.name] = variant.x
    columns = []
    for summary in sorted(summaries, key=lambda s: places[s.variant]):
        own = np.array(list(scores[summary.variant].values()))
        column = _Column(
            x=places[summary.variant],
            name=summary.variant,
            scores=factor * own,
            mean=factor * summary.mean,
            below=factor * (summary.mean - summary.low),
            above=factor * (summary.high - summary.mean),
        )
        columns.append(column)
    return columns


def _name_failed(axes: Axes, column: _Column, has_failed: np.ndarray) -> None:
    """Write the scores of a variant's failed seeds, and its mean, at the lower edge."""
    failed = np.sort(column.scores[has_failed])
    numbers = ', '.join(format_number(score) for score in failed)
    axes.annotate(
        f'not shown:\n{numbers}\nmean {format_number(column.mean)}',
        xy=(column.x, 0.02),
        xytext=(6, 0),
        xycoords=('data', 'axes fraction'),
        textcoords='offset points',
        va='bottom',
        fontsize=8,
    )


def _draw_means(axes: Axes, columns: Sequence[_Column], connected: bool) -> None:
    """Draw the means with their 95 % intervals; ``connected`` draws a line through them."""
    axes.errorbar(
        [column.x for column in columns],
        [column.mean for column in columns],
        [[column.below for column in columns], [column.above for column in columns]],
        fmt='_-' if connected else '_',
        ms=18,
        mew=2,
        c='C0',
        capsize=5,
    )


def _limit_axis(
    axes: Axes, columns: Sequence[_Column], failed: Sequence[np.ndarray]
) -> None:
    """Limit the vertical axis to the seeds that have not failed; without failures, leave it.

    Below, there is twice the room, for the scores that :func:`_name_failed` writes.

    Args:
        axes (Axes): The axes.
        columns (Sequence[_Column]): The variants.
        failed (Sequence[np.ndarray]): Which seeds have failed, for each variant.
    """
    if not any(has_failed.any() for has_failed in failed):
        return
    shown = np.concatenate(
        [
            column.scores[~has_failed]
            for column, has_failed in zip(columns, failed, strict=True)
        ]
    )
    spread = np.ptp(shown)
    margin = 0.15 * (spread if spread > 0 else 1.0)
    axes.set_ylim(shown.min() - 2 * margin, shown.max() + margin)


def _label_axes(axes: Axes, grid: Grid, columns: Sequence[_Column], unit: str) -> None:
    """Label the axes: variants by name, or by number in a sweep; metric, unit and title."""
    label = ''
    names = [column.name.replace(' ', '\n') for column in columns]
    if grid.is_sweep:
        label = grid.xlabel if grid.xlabel else 'x'
        names = [str(column.x) for column in columns]
    axes.set_xticks([column.x for column in columns], names)
    axes.set_xlabel(
        f'{label} (points: seeds; bars: mean and its 95 % interval)', fontsize=9
    )
    metric = grid.metric
    if unit:
        metric = f'{metric}, {unit}'
    axes.set_ylabel(f'{metric} ({grid.better} is better)')
    axes.set_title(grid.title, fontsize=11)
