"""A grid's results: CSV files, a table on the screen and in Markdown, and a plot."""

import math
from statistics import median
from typing import Any

import pandas as pd

from lm4ve.ablation.cells import format_interval, format_number, format_p_value
from lm4ve.ablation.grid import Grid, Trial
from lm4ve.ablation.plot import plot_grid
from lm4ve.ablation.statistics import Summary, summarize
from lm4ve.ablation.store import Store, metric_of
from lm4ve.draw.figures import save_figure
from lm4ve.files import write_text
from lm4ve.runner.rich_console import Console
from lm4ve.runner.tables import print_table

#: Fields of a result that differ from run to run.
_TIMINGS = ('step_seconds', 'wall_seconds', 'threads', 'device')

#: Columns of the table; where a grid tunes, 'tuned' follows.
_COLUMNS = (
    'variant',
    'n',
    'mean',
    '95 % interval',
    'difference',
    '95 % interval of it',
    'p (t)',
    'Holm (t)',
    'p (Wilcoxon)',
    'Holm (Wilcoxon)',
    'trainable',
    'frozen',
    's / step',
)

#: Finished trials, each with its result.
Done = list[tuple[Trial, dict[str, Any]]]
#: Variant -> seed -> score.
Scores = dict[str, dict[int, float]]
Row = dict[str, str]


def report_grid(
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
    done: Done = []
    for trial in trials:
        result = store.result(trial)
        if result is not None:
            done.append((trial, result))
    folder = store.work_dir / grid.name
    for name, frame in csv_tables(grid, done, selected).items():
        if not frame.empty:  # after an edit of the grid nothing is done; keep what was
            write_text(frame.to_csv(index=False), folder / name)

    results: dict[str, list[dict[str, Any]]] = {v.name: [] for v in grid.variants}
    scores: Scores = {v.name: {} for v in grid.variants}
    for trial, result in done:
        if trial.stage == 'main':
            results[trial.variant].append(result)
            scores[trial.variant][trial.seed] = metric_of(grid, result)
    summaries = {s.variant: s for s in summarize(scores, grid.reference)}

    rows = []
    for name, own in results.items():
        if own:
            rows.append(_row(grid, summaries[name], own, selected))
        else:
            rows.append(_row_not_run(grid, name))
    caption = _caption(grid, scores, list(summaries.values()))
    print_table(grid.title, rows, caption, console)
    if summaries:
        write_text(_markdown(rows, caption), folder / 'table.md')
        figure = plot_grid(grid, scores, list(summaries.values()))
        metadata = dict(Software=None)
        save_figure(figure, folder / 'plot.png', dpi=140, metadata=metadata)
    console.print(f'Results: {folder}', highlight=False)


# ---------------------------------------------------------------------------- CSV files
def csv_tables(
    grid: Grid, done: Done, selected: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return ``results.csv``, ``timings.csv`` and, where a grid tunes, ``tuning.csv``.

    Config and seed determine the first and the last; numbers that differ from run to
    run are in ``timings.csv``.

    Args:
        grid (Grid): The grid.
        done (list): Finished trials with their results.
        selected (dict): Variant -> its tuned value.
    """
    metrics = set()
    for _, result in done:
        metrics.update(result['metrics'])
    columns = ['variant']
    if grid.is_sweep:
        columns.append('x')
    if grid.tune is not None:
        columns.append('value')
    columns += ['seed', *sorted(metrics), 'trainable', 'frozen', 'trial']
    timings = ['stage', 'variant', 'seed', *_TIMINGS, 'trial']

    x_of = {variant.name: variant.x for variant in grid.variants}
    rows = []
    for trial, result in done:
        row = {**result['metrics'], **result, **vars(trial)}
        row['x'] = x_of[trial.variant]
        row['trial'] = trial.id
        row['chosen'] = int(selected.get(trial.variant) == trial.value)
        rows.append(row)
    names = list(dict.fromkeys([*columns, *timings, 'chosen']))
    # As objects: a missing metric must not turn counts into floats.
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    is_main = frame['stage'] == 'main'
    tables = {'results.csv': frame.loc[is_main, columns], 'timings.csv': frame[timings]}
    if grid.tune is not None:
        tables['tuning.csv'] = frame.loc[~is_main, [*columns, 'chosen']]
    return tables


# ---------------------------------------------------------------------------- table
def _row(
    grid: Grid,
    summary: Summary,
    results: list[dict[str, Any]],
    selected: dict[str, Any],
) -> Row:
    """Return a variant's cells by column.

    Args:
        grid (Grid): The grid.
        summary (Summary): Of the variant's scores.
        results (list[dict]): Of its main trials.
        selected (dict): Variant -> its tuned value.
    """
    step_seconds = median(result['step_seconds'] for result in results)
    difference = format_interval(summary.difference_low, summary.difference_high, '+')
    cells = (
        _title(grid, summary.variant),
        str(summary.count),
        format_number(summary.mean),
        format_interval(summary.low, summary.high),
        format_number(summary.difference, '+'),
        difference,
        format_p_value(summary.p_t),
        format_p_value(summary.holm_t),
        format_p_value(summary.p_wilcoxon),
        format_p_value(summary.holm_wilcoxon),
        f'{results[0]["trainable"]:,}',
        f'{results[0]["frozen"]:,}',
        format_number(step_seconds),
    )
    row = dict(zip(_COLUMNS, cells, strict=True))
    if grid.tune is not None:
        value = selected.get(summary.variant)
        row['tuned'] = str(value)
        if value in (grid.tune.values[0], grid.tune.values[-1]):
            row['tuned'] += ' (edge)'  # a better value may lie outside
    return row


def _row_not_run(grid: Grid, name: str) -> Row:
    """Return the cells of a variant that has no result."""
    row = dict.fromkeys(_COLUMNS, 'not run')
    row['variant'] = _title(grid, name)
    row['n'] = '0'
    if grid.tune is not None:
        row['tuned'] = 'not run'
    return row


def _title(grid: Grid, variant: str) -> str:
    if variant == grid.reference:
        return f'{variant} (reference)'
    return variant


def _caption(grid: Grid, scores: Scores, summaries: list[Summary]) -> str:
    """Return what the numbers are, and how many trials are missing."""
    tests = sum(not math.isnan(summary.p_t) for summary in summaries)
    caption = (
        f"{grid.metric}, {grid.better} is better; differences from '{grid.reference}', paired by "
        f'seed; two-sided p, corrected by Holm for {tests} comparison(s).'
    )
    finished = sum(len(by_seed) for by_seed in scores.values())
    missing = len(grid.variants) * len(grid.seeds) - finished
    if missing:
        caption += f' Unfinished: {missing} trials are missing.'
    return caption


def _markdown(rows: list[Row], caption: str) -> str:
    """Return the table in Markdown."""
    columns = list(rows[0])
    lines = [columns, ['---'] * len(columns)]
    for row in rows:
        lines.append(list(row.values()))
    text = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    return f'{text}\n\n{caption}\n'
