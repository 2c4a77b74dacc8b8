"""A grid's results as a table on the screen, a Markdown table and a plot."""

import math
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from lm4ve.ablation.grid import Grid, Trial
from lm4ve.ablation.statistics import Summary, summarize
from lm4ve.ablation.store import WRITE_FIX, Store, metric_of, write_tables
from lm4ve.files import write_text


def results_of(grid: Grid, store: Store, trials: list[Trial]) -> dict[str, dict[int, dict]]:
    """Return variant -> seed -> result, of the main trials that are done."""
    results: dict[str, dict[int, dict]] = {v.name: {} for v in grid.variants}
    for t in trials:
        found = store.result(t)
        if t.stage == 'main' and found is not None:
            results[t.variant][t.seed] = found
    return results


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
    results = results_of(grid, store, trials)
    scores = {
        variant: {seed: metric_of(grid, r) for seed, r in by_seed.items()}
        for variant, by_seed in results.items()
    }
    summaries = summarize(scores, grid.reference)
    known = {s.variant: s for s in summaries}
    rows = [
        _row(grid, name, known.get(name), list(by_seed.values()), chosen)
        for name, by_seed in results.items()
    ]
    caption = _caption(grid, scores, summaries)
    table = Table(title=grid.title, caption=caption)
    for name in rows[0]:
        table.add_column(name, justify='left' if name == 'variant' else 'right')
    for row in rows:
        table.add_row(*row.values())
    # Wide enough for every column where there is no terminal to ask.
    Console(file=console.file, width=max(console.width, 170)).print(table)
    lines = [f'| {" | ".join(cells)} |' for cells in [rows[0], *(r.values() for r in rows)]]
    lines.insert(1, '|---' + '|---:' * (len(rows[0]) - 1) + '|')
    out = store.work_dir / grid.name
    write_text('\n'.join([*lines, '', caption, '']), out / 'table.md', WRITE_FIX)
    if summaries:
        from lm4ve.ablation.plots import plot

        plot(grid, scores, summaries, out / 'plot.png')
    console.print(f'Results: {out}', highlight=False)


def _caption(grid: Grid, scores: dict[str, dict], summaries: list[Summary]) -> str:
    better = 'higher' if grid.greater_is_better else 'lower'
    tests = sum(not math.isnan(s.p_t) for s in summaries)
    text = (
        f"{grid.metric}, {better} is better; differences from '{grid.reference}', paired by "
        f'seed; two-sided p, corrected by Holm for {tests} comparison(s).'
    )
    missing = len(grid.variants) * len(grid.seeds) - sum(map(len, scores.values()))
    return f'{text} Unfinished: {missing} trials are missing.' if missing else text


def _row(
    grid: Grid, name: str, summary: Summary | None, results: list[dict], chosen: dict[str, Any]
) -> dict[str, str]:
    """Return a variant's cells by column; 'not run' where it has no result."""
    s = summary or Summary(name, 0, *[math.nan] * 4)
    row = {
        'variant': f'{name} (reference)' if name == grid.reference else name,
        'n': str(s.count),
        'mean': number(s.mean),
        '95 % interval': span(s.low, s.high),
        'difference': number(s.difference, True),
        '95 % interval of it': span(s.difference_low, s.difference_high, True),
        'p (t)': p_value(s.p_t),
        'Holm (t)': p_value(s.holm_t),
        'p (Wilcoxon)': p_value(s.p_wilcoxon),
        'Holm (Wilcoxon)': p_value(s.holm_wilcoxon),
        **{k: f'{results[0][k]:,}' if results else '' for k in ('trainable', 'frozen')},
        's / step': number(median([r['step_seconds'] for r in results] or [math.nan])),
        **({'tuned': _tuned(grid, chosen.get(name))} if grid.tune else {}),
    }
    return row if results else {k: row[k] if k in ('variant', 'n') else 'not run' for k in row}


def _tuned(grid: Grid, value: Any) -> str:
    """Return the chosen value, marked where a better one may lie outside."""
    text = f'{value:g}' if isinstance(value, (int, float)) else str(value)
    values = grid.tune.values
    return f'{text} (edge)' if value in (values[0], values[-1]) else text


def number(value: float, signed: bool = False) -> str:
    """Return four significant digits in plain notation; '-' for NaN."""
    if math.isnan(value):
        return '-'
    if value == 0:
        return '0'
    digits = max(0, min(6, 3 - math.floor(math.log10(abs(value)))))
    return f'{value:{"+" if signed else ""}.{digits}f}'


def span(low: float, high: float, signed: bool = False) -> str:
    """Return an interval in words; '-' for NaN."""
    if math.isnan(low):
        return '-'
    return f'{number(low, signed)} to {number(high, signed)}'


def p_value(p: float) -> str:
    """Return a p value with three decimals; '-' for NaN."""
    return '-' if math.isnan(p) else '< 0.001' if p < 0.001 else f'{p:.3f}'
