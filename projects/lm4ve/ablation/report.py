"""A grid's results: CSV files, a table on the screen and in Markdown, and a plot."""

import math
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lm4ve.ablation.cells import format_interval, format_number, format_p_value
from lm4ve.ablation.grid import Grid, Trial
from lm4ve.ablation.statistics import Summary, summarize
from lm4ve.ablation.store import Store, metric_of
from lm4ve.draw.figures import save_figure
from lm4ve.files import write_text
from lm4ve.runner.rich_console import Console
from lm4ve.runner.tables import print_table

_TIMINGS = ('step_seconds', 'wall_seconds', 'threads', 'device')

Done = list[tuple[Trial, dict]]
Scores = dict[str, dict[int, float]]


def report(
    grid: Grid,
    store: Store,
    trials: list[Trial],
    selected: dict[str, Any],
    console: Console,
) -> None:
    """Write CSV files, table and plot of the finished trials, and print the table.

    Args:
        grid (Grid): The grid.
        store (Store): Holds the results.
        trials (list[Trial]): Tuning trials and main ones.
        selected (dict): Variant -> its tuned value.
        console (Console): Prints the table.

    Raises:
        UserError: A result lacks the metric.
    """
    done = [(t, r) for t in trials if (r := store.result(t)) is not None]
    out = store.work_dir / grid.name
    for name, frame in csv_tables(grid, done, selected).items():
        if not frame.empty:  # after an edit of the grid nothing is done; keep what was
            write_text(frame.to_csv(index=False), out / name)
    results: dict[str, dict[int, dict]] = {v.name: {} for v in grid.variants}
    for t, r in done:
        if t.stage == 'main':
            results[t.variant][t.seed] = r
    scores = {
        v: {s: metric_of(grid, r) for s, r in by.items()} for v, by in results.items()
    }
    summaries = {s.variant: s for s in summarize(scores, grid.reference)}
    rows = [
        _row(grid, name, summaries.get(name), list(by_seed.values()), selected)
        for name, by_seed in results.items()
    ]
    caption = _caption(grid, scores, list(summaries.values()))
    print_table(grid.title, rows, caption, console)
    if summaries:
        cells = [
            list(rows[0]),
            ['---'] * len(rows[0]),
            *([*row.values()] for row in rows),
        ]
        lines = [f'| {" | ".join(line)} |' for line in cells]
        write_text('\n'.join([*lines, '', caption, '']), out / 'table.md')
        figure = plot(grid, scores, list(summaries.values()))
        save_figure(figure, out / 'plot.png', dpi=140, metadata=dict(Software=None))
    console.print(f'Results: {out}', highlight=False)


# ---------------------------------------------------------------------------- CSV files
def csv_tables(
    grid: Grid, done: Done, selected: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return ``results.csv``, ``timings.csv`` and, where a grid tunes, ``tuning.csv``.

    Config and seed determine the first and the last; numbers that differ from run to
    run are in ``timings.csv``.
    """
    metrics = sorted({m for _, r in done for m in r['metrics']})
    trial = [
        'variant',
        *['x'] * grid.is_sweep,
        *['value'] * (grid.tune is not None),
        'seed',
    ]
    columns = [*trial, *metrics, 'trainable', 'frozen', 'trial']
    timings = ['stage', 'variant', 'seed', *_TIMINGS, 'trial']
    xs = {v.name: v.x for v in grid.variants}
    rows = [
        {**r['metrics'], **r, **vars(t)}
        | dict(
            x=xs[t.variant], trial=t.id, chosen=int(selected.get(t.variant) == t.value)
        )
        for t, r in done
    ]
    # As objects: a missing metric must not turn counts into floats.
    names = dict.fromkeys([*columns, *timings, 'chosen'])
    frame = pd.DataFrame(rows, columns=list(names), dtype=object)
    is_main = frame['stage'] == 'main'
    tables = {'results.csv': frame.loc[is_main, columns], 'timings.csv': frame[timings]}
    if grid.tune:
        tables['tuning.csv'] = frame.loc[~is_main, [*columns, 'chosen']]
    return tables


# ---------------------------------------------------------------------------- table
def _better(grid: Grid) -> str:
    return 'higher' if grid.greater_is_better else 'lower'


def _caption(grid: Grid, scores: Scores, summaries: list[Summary]) -> str:
    tests = sum(not math.isnan(s.p_t) for s in summaries)
    missing = len(grid.variants) * len(grid.seeds) - sum(map(len, scores.values()))
    return (
        f"{grid.metric}, {_better(grid)} is better; differences from '{grid.reference}', paired by "
        f'seed; two-sided p, corrected by Holm for {tests} comparison(s).'
        + f' Unfinished: {missing} trials are missing.'
        * bool(missing)
    )


def _row(
    grid: Grid,
    name: str,
    summary: Summary | None,
    results: list[dict],
    selected: dict[str, Any],
) -> dict[str, str]:
    """Return a variant's cells by column; 'not run' where it has no result."""
    row = dict(variant=f'{name} (reference)' if name == grid.reference else name)
    if (s := summary) is None:
        s = Summary(name, 0, *[math.nan] * 3)
    row |= {
        'n': str(s.count),
        'mean': format_number(s.mean),
        '95 % interval': format_interval(s.low, s.high),
        'difference': format_number(s.difference, '+'),
        '95 % interval of it': format_interval(
            s.difference_low, s.difference_high, '+'
        ),
        'p (t)': format_p_value(s.p_t),
        'Holm (t)': format_p_value(s.holm_t),
        'p (Wilcoxon)': format_p_value(s.p_wilcoxon),
        'Holm (Wilcoxon)': format_p_value(s.holm_wilcoxon),
        **{k: f'{results[0][k]:,}' if results else '' for k in ('trainable', 'frozen')},
        's / step': format_number(
            median([r['step_seconds'] for r in results] or [math.nan])
        ),
    }
    if grid.tune:
        value, values = selected.get(name), grid.tune.values
        # A better value may lie outside.
        row['tuned'] = (
            f'{value} (edge)' if value in (values[0], values[-1]) else str(value)
        )
    return (
        row
        if results
        else {k: row[k] if k in ('variant', 'n') else 'not run' for k in row}
    )


# ---------------------------------------------------------------------------- plot
#: What a metric begins with -> its unit, and the factor to it: mmaction2 reports
#: shares.
_UNITS = {
    'acc/': ('%', 100),
    **dict.fromkeys(('accuracy/', 'vqa/', 'retrieval/', 'sqa3d/'), ('%', 1)),
    'motion/min': ('m', 1),
}


def plot(grid: Grid, scores: Scores, summaries: list[Summary]) -> Figure:
    """Draw a point for each seed, the means and their 95 % intervals; a sweep as a line.

    Failed seeds (:func:`failed_seeds`) are written at the edge and do not stretch the
    axis.
    """
    unit, factor = next(
        (u for k, u in _UNITS.items() if grid.metric.startswith(k)), ('', 1)
    )
    is_sweep = grid.is_sweep
    # Every variant of a sweep has its x.
    x_of: dict[str, Any] = {
        v.name: v.x if is_sweep else i for i, v in enumerate(grid.variants)
    }
    summaries = sorted(summaries, key=lambda s: x_of[s.variant])
    xs, means = (
        [x_of[s.variant] for s in summaries],
        [factor * s.mean for s in summaries],
    )
    values = [factor * np.array(list(scores[s.variant].values())) for s in summaries]
    failed = failed_seeds(values)
    figure = Figure(
        figsize=(max(1.6 + 1.25 * len(summaries), 4.8), 3.8), layout='constrained'
    )
    ax = figure.subplots()
    for x, s, its, bad in zip(xs, summaries, values, failed, strict=True):
        ax.plot([x] * s.count, its, 'o', ms=4, alpha=0.4, c='C0')
        if s.variant == grid.reference:
            ax.axhline(factor * s.mean, color='C3', lw=0.8, ls=':')
        if bad.any():
            text = 'not shown:\n' + ', '.join(
                format_number(v) for v in [*np.sort(its[bad])]
            )
            text += f'\nmean {format_number(factor * s.mean)}'
            ax.annotate(
                text,
                xy=(x, 0.02),
                xytext=(6, 0),
                xycoords=('data', 'axes fraction'),
                textcoords='offset points',
                va='bottom',
                fontsize=8,
            )
    ends = [[factor * (s.mean - s.low), factor * (s.high - s.mean)] for s in summaries]
    form = '_-' if is_sweep else '_'
    ax.errorbar(
        xs, means, np.transpose(ends), fmt=form, ms=18, mew=2, c='C0', capsize=5
    )
    if any(bad.any() for bad in failed):
        shown = np.concatenate(
            [its[~bad] for its, bad in zip(values, failed, strict=True)]
        )
        margin = 0.15 * (np.ptp(shown) or 1.0)
        ax.set_ylim(shown.min() - 2 * margin, shown.max() + margin)
    names = [s.variant.replace(' ', '\n') for s in summaries]
    ax.set_xticks(xs, [str(x) for x in xs] if is_sweep else names)
    label = grid.xlabel or 'x' if is_sweep else ''
    ax.set_xlabel(
        f'{label} (points: seeds; bars: mean and its 95 % interval)', fontsize=9
    )
    ax.set_ylabel(f'{grid.metric}{unit and f", {unit}"} ({_better(grid)} is better)')
    ax.set_title(grid.title, fontsize=11)
    return figure


def failed_seeds(values: list[np.ndarray]) -> list[np.ndarray]:
    """Return which scores lie ten typical deviations or more from their variant's median.

    The typical deviation is the median one of all variants, so that a few failures
    among few seeds do not hide themselves.
    """
    off = [np.abs(v - np.median(v)) for v in values]
    typical = np.median(np.concatenate(off))
    return [(o >= 10 * typical) & (typical > 0) for o in off]
