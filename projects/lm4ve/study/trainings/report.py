"""A grid's results: CSV files, a table on the screen and in Markdown, and a plot."""

import math
from pathlib import Path
from statistics import mean, median
from typing import Any

import pandas as pd

from lm4ve.draw.figures import save_figure
from lm4ve.errors import check
from lm4ve.files import write_csv, write_text
from lm4ve.runner.rich_console import Console
from lm4ve.runner.scored_data import SampleCounts
from lm4ve.runner.tables import print_table
from lm4ve.study.cells import format_interval, format_number, format_p_value
from lm4ve.study.job import Job
from lm4ve.study.statistics import Summary, paired_seeds, summarize
from lm4ve.study.store import Result, Store
from lm4ve.study.trainings.grid import Grid, Published
from lm4ve.study.trainings.plot import plot_grid
from lm4ve.study.trainings.tuned import counts_of, metric_of

#: Fields of a result that differ from run to run.
_TIMINGS = ('step_seconds', 'seconds', 'threads', 'device')

#: Columns of the table in their order; in a grid that tunes, 'tuned' follows.
_COLUMNS = (
    'variant',
    'n',
    'samples',
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

#: Finished jobs, each with its result.
Done = list[tuple[Job, Result]]
#: Variant -> seed -> score.
Scores = dict[str, dict[int, float]]
#: Variant -> seed -> the number of samples of its score.
Counts = dict[str, dict[int, SampleCounts]]
Row = dict[str, str]


def report_grid(
    grid: Grid,
    store: Store,
    jobs: list[Job],
    selected: dict[str, Any],
    folder: Path,
    console: Console,
) -> None:
    """Write CSV files, table and plot of the finished jobs, and print the table.

    Args:
        grid (Grid): The grid.
        store (Store): Holds the results.
        jobs (list[Job]): All of the grid, of both stages.
        selected (dict): Variant -> its tuned value.
        folder (Path): Where the files go.
        console (Console): Prints the table.

    Raises:
        UserError: A result lacks the metric.
    """
    done: Done = []
    for job in jobs:
        result = store.result(job)
        if result is not None:
            done.append((job, result))
    for name, frame in csv_tables(grid, done, selected).items():
        # After an edit of the grid no job may be done; then the old file stays.
        if not frame.empty:
            rows = frame.itertuples(index=False, name=None)
            write_csv(frame.columns, rows, folder / name)

    results: dict[str, list[Result]] = {v.name: [] for v in grid.variants}
    scores: Scores = {v.name: {} for v in grid.variants}
    counts: Counts = {v.name: {} for v in grid.variants}
    for job, result in done:
        if job.stage == 'test':
            results[job.variant].append(result)
            scores[job.variant][job.seed] = metric_of(grid, result)
            counts[job.variant][job.seed] = counts_of(result)
    summaries = {s.variant: s for s in summarize(scores, grid.reference, counts)}

    rows = []
    for name, own in results.items():
        if own:
            rows.append(_row(grid, summaries[name], own, selected))
        else:
            rows.append(_row_not_run(grid, name))
    caption = _caption(grid, scores, list(summaries.values())) + _unpaired(grid, counts)
    print_table(grid.title, rows, caption, console)
    if summaries:
        write_text(_markdown(rows, caption), folder / 'table.md')
        figure = plot_grid(grid, scores, list(summaries.values()))
        metadata = dict(Software=None)
        save_figure(figure, folder / 'plot.png', dpi=140, metadata=metadata)
    if grid.published is not None:
        own_rows = published_rows(grid.published, results)
        own_caption = f'Published: {grid.published.source}. Here: mean over seeds.'
        print_table(f'{grid.title}: published', own_rows, own_caption, console)
        write_text(_markdown(own_rows, own_caption), folder / 'published.md')
    console.print(f'Results: {folder}', highlight=False)


# ---------------------------------------------------------------------------- CSV files
def csv_tables(
    grid: Grid, done: Done, selected: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return the grid's CSV files as data frames, by file name.

    - ``results.csv``: a row for each training that is compared: variant, seed, metrics,
      and numbers of samples and parameters. Config and seed determine its content.
    - ``timings.csv``: a row for each training, of either stage, with the numbers that
      differ from run to run.
    - ``tuning.csv``, only for a grid that tunes: ``results.csv`` of tuning,
      and ``chosen``, which is 1 for the value that was selected for the variant, else 0.

    Args:
        grid (Grid): The grid.
        done (list): Finished jobs with their results.
        selected (dict): Variant -> its tuned value.
    """
    columns = _result_columns(grid, done)
    x_of = {variant.name: variant.x for variant in grid.variants}
    main_rows = []
    tuning_rows = []
    timing_rows = []
    for job, result in done:
        row = dict(
            result.metrics,
            variant=job.variant,
            x=x_of[job.variant],
            value=job.value,
            seed=job.seed,
            scored=result.scored,
            total=result.total,
            trainable=result.facts['trainable'],
            frozen=result.facts['frozen'],
            key=job.key,
        )
        if job.stage == 'test':
            main_rows.append(row)
        else:
            is_chosen = selected.get(job.variant) == job.value
            tuning_rows.append(dict(row, chosen=int(is_chosen)))
        timing = dict(stage=job.stage, variant=job.variant, seed=job.seed, key=job.key)
        for name in _TIMINGS:
            timing[name] = result.facts.get(name)
        timing['seconds'] = result.seconds
        timing_rows.append(timing)

    timing_columns = ['stage', 'variant', 'seed', *_TIMINGS, 'key']
    tables = {
        'results.csv': _frame(main_rows, columns),
        'timings.csv': _frame(timing_rows, timing_columns),
    }
    if grid.tune is not None:
        tables['tuning.csv'] = _frame(tuning_rows, [*columns, 'chosen'])
    return tables


def _result_columns(grid: Grid, done: Done) -> list[str]:
    """Return the columns of ``results.csv`` in their order, metrics sorted by name."""
    metrics: set[str] = set()
    for _, result in done:
        metrics.update(result.metrics)
    columns = ['variant']
    if grid.is_sweep:
        columns.append('x')
    if grid.tune is not None:
        columns.append('value')
    numbers = ['scored', 'total', 'trainable', 'frozen']
    return [*columns, 'seed', *sorted(metrics), *numbers, 'key']


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Return rows as a data frame of objects, so that a missing metric leaves counts integers."""
    return pd.DataFrame(rows, columns=columns, dtype=object)


# ---------------------------------------------------------------------------- table
def _row(
    grid: Grid,
    summary: Summary,
    results: list[Result],
    selected: dict[str, Any],
) -> Row:
    """Return the table's row of a variant that has results: column -> cell.

    In a grid that tunes, 'tuned' is the value that was selected for the variant, marked
    as an edge where it is the first or last of the grid's: a better one may lie outside.

    Args:
        grid (Grid): The grid.
        summary (Summary): The summary of the variant's scores.
        results (list[Result]): The results that are compared, at least one.
        selected (dict): Variant -> its tuned value. In a grid that tunes, a variant with
            results has one.
    """
    step_seconds = median(result.facts['step_seconds'] for result in results)
    any_result = results[0]  # the seed does not change the number of parameters
    row = {
        'variant': _title(grid, summary.variant),
        'n': str(summary.count),
        'samples': _describe_counts(results),
        'mean': format_number(summary.mean),
        '95 % interval': format_interval(summary.low, summary.high),
        'difference': format_number(summary.difference, sign='+'),
        '95 % interval of it': format_interval(
            summary.difference_low, summary.difference_high, sign='+'
        ),
        'p (t)': format_p_value(summary.p_t),
        'Holm (t)': format_p_value(summary.holm_t),
        'p (Wilcoxon)': format_p_value(summary.p_wilcoxon),
        'Holm (Wilcoxon)': format_p_value(summary.holm_wilcoxon),
        'trainable': f'{any_result.facts["trainable"]:,}',
        'frozen': f'{any_result.facts["frozen"]:,}',
        's / step': format_number(step_seconds),
    }
    if grid.tune is not None:
        value = selected[summary.variant]
        row['tuned'] = str(value)
        if value in (grid.tune.values[0], grid.tune.values[-1]):
            row['tuned'] += ' (edge)'
    return row


def _describe_counts(results: list[Result]) -> str:
    """Return the numbers of samples of a variant's scores: one, or several where they differ."""
    different = {counts_of(result): None for result in results}
    cells = [f'{counts.scored:,} of {counts.total:,}' for counts in different]
    return ', '.join(cells)


def _row_not_run(grid: Grid, name: str) -> Row:
    """Return the table's row of a variant without a result: 'not run' in every cell."""
    row = dict.fromkeys(_COLUMNS, 'not run')
    row['variant'] = _title(grid, name)
    row['n'] = '0'
    if grid.tune is not None:
        row['tuned'] = 'not run'
    return row


def published_rows(published: Published, results: dict[str, list[Result]]) -> list[Row]:
    """Return a row for each variant with a published score: for each metric, both scores.

    Args:
        published (Published): The published scores.
        results (dict): Variant -> its results that are compared.

    Raises:
        UserError: A result lacks a metric of the published scores.
    """
    rows = []
    for variant, scores in published.scores.items():
        row = {'variant': variant, 'n': str(len(results[variant]))}
        for metric in published.metrics:
            row[f'{metric} published'] = '-'
            if metric in scores:
                row[f'{metric} published'] = f'{scores[metric]:g}'
            row[f'{metric} here'] = _mean_of(metric, results[variant])
        rows.append(row)
    return rows


def _mean_of(metric: str, results: list[Result]) -> str:
    """Return the mean of a metric over results, or 'not run'.

    Raises:
        UserError: A result lacks the metric.
    """
    if not results:
        return 'not run'
    scores = []
    for result in results:
        check('published.scores', metric, choices=sorted(result.metrics))
        scores.append(result.metrics[metric])
    return format_number(mean(scores))


def _title(grid: Grid, variant: str) -> str:
    """Return a variant's name as the table shows it: the reference is marked."""
    if variant == grid.reference:
        return f'{variant} (reference)'
    return variant


def _caption(grid: Grid, scores: Scores, summaries: list[Summary]) -> str:
    """Return the sentences below the table: what its numbers are, and what is missing.

    Args:
        grid (Grid): The grid.
        scores (Scores): Variant -> seed -> score.
        summaries (list[Summary]): The summaries of the variants that have scores.
    """
    # The p value is NaN for the reference and where seeds are too few for a test.
    tests = sum(not math.isnan(summary.p_t) for summary in summaries)
    caption = (
        f"{grid.metric}, {grid.better} is better; differences from '{grid.reference}', paired by "
        f'seed; two-sided p, corrected by Holm for {tests} comparison(s).'
    )
    finished = sum(len(by_seed) for by_seed in scores.values())
    missing = len(grid.variants) * len(grid.seeds) - finished
    if missing:
        caption += f' Unfinished: {missing} trainings are missing.'
    return caption


def _unpaired(grid: Grid, counts: Counts) -> str:
    """Return the sentence on scores that are not paired, since their samples differ, or ''."""
    reference = counts[grid.reference]
    number = 0
    for name, own in counts.items():
        if name != grid.reference:
            shared = own.keys() & reference.keys()
            number += len(shared) - len(paired_seeds(own, reference))
    if not number:
        return ''
    return f" Not paired: {number} score(s), over another number of samples than the reference's."


def _markdown(rows: list[Row], caption: str) -> str:
    """Return rows as a Markdown table with the caption below it."""
    columns = list(rows[0])
    lines = [columns, ['---'] * len(columns)]
    for row in rows:
        lines.append(list(row.values()))
    text = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    return f'{text}\n\n{caption}\n'
