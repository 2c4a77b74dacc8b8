"""A grid's results as a table on the screen, a Markdown table and a plot."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from lm4ve.ablation.grid import Grid, Trial
from lm4ve.ablation.statistics import Summary, median_of, summarize
from lm4ve.ablation.store import WRITE_FIX, Store, metric_of, write_tables
from lm4ve.engine.files import write_text

_COLUMNS = (
    'variant',
    'n',
    'mean',
    '95 % interval',
    'difference',
    '95 % interval of it',
    'p (t)',
    'Holm',
    'p (Wilcoxon)',
    'Holm',
    'trainable',
    'frozen',
    's / step',
)


def scores_of(grid: Grid, store: Store, trials: list[Trial]) -> dict[str, dict[int, float]]:
    """Return variant -> seed -> score, of the main trials that are done.

    Raises:
        UserError: A result lacks the metric.
    """
    scores: dict[str, dict[int, float]] = {v.name: {} for v in grid.variants}
    for t in trials:
        found = store.result(t)
        if t.stage == 'main' and found is not None:
            scores[t.variant][t.seed] = metric_of(grid, found)
    return scores


def report(
    grid: Grid, store: Store, trials: list[Trial], chosen: dict[str, Any], console: Console
) -> None:
    """Write tables and plot of what is done, and print the table.

    Args:
        grid (Grid): The grid.
        store (Store): Where its trials are.
        trials (list[Trial]): Tuning trials and main ones.
        chosen (dict): Variant -> its tuned value.
        console (Console): Where the table goes.

    Raises:
        UserError: A result lacks the metric.
    """
    write_tables(grid, store, trials, chosen)
    scores = scores_of(grid, store, trials)
    summaries = summarize(scores, grid.reference)
    out = store.work_dir / grid.name
    done = sum(map(len, scores.values()))
    missing = len(grid.variants) * len(grid.seeds) - done
    rows = _rows(grid, store, trials, summaries, chosen)
    columns = [*_COLUMNS, *(['tuned'] if grid.tune else [])]
    caption = _caption(grid, missing)
    table = Table(title=grid.title, caption=caption)
    for name in columns:
        table.add_column(name, justify='left' if name == 'variant' else 'right')
    for row in rows:
        table.add_row(*row)
    # Wide enough for every column where there is no terminal to ask.
    wide = Console(file=console.file, width=max(console.width, 170))
    wide.print(table)
    lines = [f'| {" | ".join(r)} |' for r in [columns, *rows]]
    lines.insert(1, '|---' + '|---:' * (len(columns) - 1) + '|')
    write_text('\n'.join([*lines, '', caption, '']), out / 'table.md', WRITE_FIX)
    if summaries:
        from lm4ve.ablation.plots import plot

        plot(grid, scores, summaries, out / 'plot.png')
    console.print(f'Results: {out}', highlight=False)


def _caption(grid: Grid, missing: int) -> str:
    better = 'higher' if grid.greater_is_better else 'lower'
    text = (
        f"{grid.metric}, {better} is better; differences from '{grid.reference}', paired by seed; "
        f'two-sided p, corrected by Holm for {len(grid.variants) - 1} comparisons.'
    )
    if missing:
        text += f' Unfinished: {missing} trials are missing.'
    return text


def _rows(
    grid: Grid, store: Store, trials: list[Trial], summaries: list[Summary], chosen: dict[str, Any]
) -> list[list[str]]:
    results: dict[str, list] = {}
    for t in trials:
        found = store.result(t)
        if t.stage == 'main' and found is not None:
            results.setdefault(t.variant, []).append(found)
    rows = []
    for s in summaries:
        of = results[s.variant]
        name = s.variant + (' (reference)' if s.variant == grid.reference else '')
        row = [
            name,
            str(s.count),
            number(s.mean),
            span(s.low, s.high),
            number(s.difference, True),
            span(s.difference_low, s.difference_high, True),
            p_value(s.p_t),
            p_value(s.holm_t),
            p_value(s.p_wilcoxon),
            p_value(s.holm_wilcoxon),
            f'{of[0]["trainable"]:,}',
            f'{of[0]["frozen"]:,}',
            number(median_of([r['step_seconds'] for r in of])),
        ]
        if grid.tune:
            row.append(_tuned(grid, chosen.get(s.variant)))
        rows.append(row)
    return rows


def _tuned(grid: Grid, value: Any) -> str:
    """The chosen value, marked where a better one may lie outside."""
    text = f'{value:g}' if isinstance(value, (int, float)) else str(value)
    values = grid.tune.values
    return f'{text} (edge)' if value in (values[0], values[-1]) else text


def number(value: float, signed: bool = False) -> str:
    """Four significant digits, in plain notation; '-' for NaN."""
    if math.isnan(value):
        return '-'
    if value == 0:
        return '0'
    digits = max(0, min(6, 3 - math.floor(math.log10(abs(value)))))
    return f'{value:{"+" if signed else ""}.{digits}f}'


def span(low: float, high: float, signed: bool = False) -> str:
    """An interval; '-' for NaN."""
    if math.isnan(low):
        return '-'
    return f'{number(low, signed)} to {number(high, signed)}'


def p_value(p: float) -> str:
    """A p value with three decimals; '-' for NaN."""
    return '-' if math.isnan(p) else '< 0.001' if p < 0.001 else f'{p:.3f}'
