"""One plot a grid: a point for each seed, the mean and its 95 % interval."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lm4ve.ablation.grid import Grid
from lm4ve.ablation.statistics import Summary
from lm4ve.tasks.base.figures import save_figure

_COLOR, _REFERENCE = '#4477aa', '#cc6677'


def plot(
    grid: Grid, scores: dict[str, dict[int, float]], summaries: list[Summary], path: Path
) -> None:
    """Draw a grid's results.

    Args:
        grid (Grid): A sweep is drawn as a line with a band, other variants side
            by side.
        scores (dict[str, dict[int, float]]): Variant -> seed -> score.
        summaries (list[Summary]): The summaries of the scores.
        path (Path): The PNG to write.
    """
    draw = _sweep if grid.is_sweep else _categories
    width = 6.4 if grid.is_sweep else 1.6 + 1.25 * len(summaries)
    fig = Figure(figsize=(max(width, 4.8), 3.8), layout='constrained')
    ax = fig.subplots()
    draw(ax, grid, scores, summaries)
    better = 'higher' if grid.greater_is_better else 'lower'
    ax.set_ylabel(f'{grid.metric} ({better} is better)')
    ax.set_title(grid.title, fontsize=11)
    ax.grid(axis='y', alpha=0.3)
    ax.spines[['top', 'right']].set_visible(False)
    save_figure(fig, path, dpi=140, metadata=dict(Software=None))


def _categories(ax, grid: Grid, scores, summaries) -> None:
    for i, s in enumerate(summaries):
        color = _REFERENCE if s.variant == grid.reference else _COLOR
        values = list(scores[s.variant].values())
        # Side by side where they would hide each other, the same every time.
        shift = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0]
        ax.plot(i + np.array(shift), values, 'o', ms=4, alpha=0.45, color=color, mew=0)
        ax.plot([i - 0.25, i + 0.25], [s.mean] * 2, color=color, lw=2)
        if s.low == s.low:
            ax.errorbar(
                i, s.mean, [[s.mean - s.low], [s.high - s.mean]], color=color, capsize=5, lw=1.5
            )
    ax.set_xticks(range(len(summaries)), [s.variant.replace(' ', '\n') for s in summaries])
    reference = [s.mean for s in summaries if s.variant == grid.reference]
    if reference:
        ax.axhline(reference[0], color=_REFERENCE, lw=0.8, ls=':')
    ax.set_xlabel('points: seeds; bars: mean and its 95 % interval', fontsize=9)


def _sweep(ax, grid: Grid, scores, summaries) -> None:
    x_of = {v.name: v.x for v in grid.variants}
    ordered = sorted(summaries, key=lambda s: x_of[s.variant])
    xs = [x_of[s.variant] for s in ordered]
    for s in ordered:
        values = list(scores[s.variant].values())
        ax.plot([x_of[s.variant]] * len(values), values, 'o', ms=4, alpha=0.35, color=_COLOR, mew=0)
    ax.plot(xs, [s.mean for s in ordered], '-', color=_COLOR, lw=2, marker='_', ms=12)
    ax.fill_between(
        xs, [s.low for s in ordered], [s.high for s in ordered], color=_COLOR, alpha=0.2, lw=0
    )
    ax.set_xticks(xs)
    ax.set_xlabel(
        f'{grid.xlabel or "x"} (points: seeds; band: 95 % interval of the mean)', fontsize=9
    )
