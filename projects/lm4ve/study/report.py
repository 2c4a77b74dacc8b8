"""The report of a study, of heads or of trainings: a table, a plot, a page and sentences.

A kind of study says what its own files hold (:class:`Report`); all the rest follows
from that here, so that both have one rule, one table and one plot.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lm4ve.analysis.pages import render_page
from lm4ve.draw.figures import save_figure
from lm4ve.errors import UserError, brief, listing
from lm4ve.files import read_json, write_csv, write_json, write_text
from lm4ve.runner.rich_console import Console
from lm4ve.runner.tables import print_table
from lm4ve.study.cells import Metric
from lm4ve.study.compare import Comparison, Score
from lm4ve.study.plot import draw_study
from lm4ve.study.report_files import FILES, PAGE, SENTENCE
from lm4ve.study.table import (
    Row,
    as_markdown,
    narrow_rows,
    result_rows,
    words_of_gain,
)

#: Which study a folder's report is of.
OWNER = '.study.json'
#: Rows of the page's tables; the CSV files have all.
_MOST_CLASSES = 20
_MOST_CONFUSIONS = 10
#: Columns of a terminal that the table of results needs.
_TABLE_WIDTH = 115


@dataclass(frozen=True)
class Mistakes:
    """What two variants get wrong, where single pictures are known.

    Attributes:
        pair (tuple[str, str]): The variants: the one that the study is about, and another.
        test_count (int): How many test pictures there are.
        classes (list[Row]): A row for each class.
        confusions (list[Row]): A row for each pair of classes that is confused.
        examples (list): Groups of pictures that only one of them gets right.
    """

    pair: tuple[str, str]
    test_count: int
    classes: list[Row]
    confusions: list[Row]
    examples: list[Any]


@dataclass(frozen=True)
class Report:
    """What a study's report says.

    Attributes:
        title (str): What was studied.
        metric (Metric): What the scores are.
        margin (float): The smallest difference that matters, in the metric's unit.
        reference (str): The variant that is in each comparison.
        names (Sequence[str]): All variants, in the order of tables.
        scores (Mapping[str, Score]): That of each variant that has one.
        failed (Collection[str]): Variants that have failed, wholly or in part.
        comparisons (list[Comparison]): The planned ones; a positive difference says
            that the first of the two is better.
        sentence, details (str): The answer, and all comparisons in words.
        notes (list[str]): What a reader has to know.
        costs (list[Row]): What each variant is and takes.
        costs_words (str): What the columns of these rows are.
        recipe (str): How it was trained.
        rule (str): How verdicts are reached.
        command (str): The command line.
        warnings (Sequence[str]): What was warned of.
        cells (Mapping): More columns of the table: name -> variant -> cell.
        cells_words (str): What they are.
        mistakes (Mistakes, optional): Where single pictures are known.
        published (list[Row]): Scores that somebody has published, beside those here.
        published_words (str): What these rows are.
        looks (str): What reports with other numbers of seeds have said.
    """

    title: str
    metric: Metric
    margin: float
    reference: str
    names: Sequence[str]
    scores: Mapping[str, Score]
    comparisons: list[Comparison]
    sentence: str
    details: str
    notes: list[str]
    costs: list[Row]
    costs_words: str
    recipe: str
    rule: str
    command: str
    failed: Collection[str] = ()
    warnings: Sequence[str] = ()
    cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cells_words: str = ''
    mistakes: Mistakes | None = None
    published: list[Row] = field(default_factory=list)
    published_words: str = ''
    looks: str = ''


def write_report(report: Report, out: Path, console: Console | None = None) -> None:
    """Write what follows from a study's files, and print the answer, the table and the notes.

    Args:
        report (Report): What it says.
        out (Path): The folder.
        console (Console, optional): Prints; by default on the standard output.
    """
    rows = result_rows(
        report.names,
        report.reference,
        report.scores,
        report.comparisons,
        report.metric,
        report.margin,
        report.cells,
        report.failed,
    )
    words = describe_table(report)
    _write_tables(report, out)
    plot = out / 'plot.png'
    figure = draw_study(
        report.names,
        report.reference,
        report.scores,
        report.comparisons,
        report.metric,
        report.margin,
        report.title,
    )
    save_figure(figure, plot, dpi=140, metadata=dict(Software=None))
    parts = [as_markdown(rows), words, as_markdown(report.costs), report.costs_words]
    write_text('\n\n'.join([*parts, *_notes(report)]) + '\n', out / 'table.md')
    if report.published:
        table = as_markdown(report.published)
        write_text(f'{table}\n\n{report.published_words}\n', out / 'published.md')
    write_text('\n'.join(_sentences(report)) + '\n', out / SENTENCE)
    render_page(
        Path(__file__).with_name('report.html'),
        out / PAGE,
        title=report.title,
        report=report,
        rows=rows,
        words=words,
        picture=plot,
        most_classes=_MOST_CLASSES,
        most_confusions=_MOST_CONFUSIONS,
    )
    _print_report(report, rows, words, out, console or Console())


def describe_table(report: Report) -> str:
    """Return what the columns of the table of results are."""
    metric = report.metric
    words = f'{metric.with_unit}, {metric.better} is better: the mean over seeds, ± '
    words += 'half of its 95 % interval over seeds and groups of pictures. '
    if report.cells_words:
        words += f'{report.cells_words} '
    unit = metric.unit_of_differences
    of_unit = f' in {unit}' if unit else ''
    gain = words_of_gain(report.reference, report.comparisons)
    return (
        f'{words}Differences{of_unit} are gains of {gain}, with the interval that is judged '
        'and drawn.'
    )


def notes_on_plan(
    pairs: Sequence[tuple[str, str]], scores: Mapping[str, Any]
) -> list[str]:
    """Return a note that names planned variants without scores.

    Args:
        pairs (Sequence): The planned comparisons.
        scores (Mapping): Variant -> its scores.
    """
    missing = {name: None for pair in pairs for name in pair if name not in scores}
    if not missing:
        return []
    names = ', '.join(f"'{name}'" for name in missing)
    return [f'Planned and without scores: {names}. The correction counts them.']


def _sentences(report: Report) -> list[str]:
    """Return the answer, all comparisons in words, and what was said before."""
    return [text for text in (report.sentence, report.details, report.looks) if text]


def _notes(report: Report) -> list[str]:
    """Return the notes as lines."""
    return [f'Note: {note}' for note in report.notes]


def _write_tables(report: Report, out: Path) -> None:
    """Write the CSV files that follow from the results.

    ``comparisons.csv`` has a row for each planned comparison; ``classes.csv`` and
    ``confusions.csv`` are about two variants, where single pictures are known.
    """
    tables = {'comparisons.csv': pd.DataFrame([vars(c) for c in report.comparisons])}
    if report.mistakes is not None:
        tables['classes.csv'] = pd.DataFrame(report.mistakes.classes)
        tables['confusions.csv'] = pd.DataFrame(report.mistakes.confusions)
    for name, table in tables.items():
        rows = table.itertuples(index=False, name=None)
        write_csv(table.columns, rows, out / name)


def _print_report(
    report: Report, rows: list[Row], words: str, out: Path, console: Console
) -> None:
    """Print the answer, the table, the lines below it, and where the report is."""

    def print_line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    print_line(f'\n{report.sentence}\n')
    width = None
    if console.is_terminal:  # a file has room
        width = console.width
    if width is not None and width < _TABLE_WIDTH:
        rows = narrow_rows(rows, report.cells)
    print_table(report.title, rows, console=console, width=width)
    print_line(words)
    for sentence in _sentences(report)[1:]:
        print_line(sentence)
    for note in _notes(report):
        print_line(note)
    if report.published:
        title = f'{report.title}: published'
        print_table(title, report.published, report.published_words, console)
    print_line(f'Report: {out / PAGE}')


def claim_folder(out: Path, study: Mapping[str, str]) -> None:
    """Record in a folder which study's report it holds; refuse a folder that holds others.

    Args:
        out (Path): The folder.
        study (Mapping[str, str]): 'encoder', 'data' and so on -> what the user named.

    Raises:
        UserError: It holds the report of another study, or files of another command
            that a report would replace; or a name is no text, which no report can hold.
    """
    identity = {}
    for name, value in study.items():
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise UserError(
                f'The name of the {name}, {ascii(value)}, is not in UTF-8. Fix: rename it.'
            ) from e
        # Relative and absolute paths of one file are the same study.
        identity[name] = os.path.realpath(value) if os.path.exists(value) else value
    stored = read_json(out / OWNER)
    present = [name for name in FILES if (out / name).exists()]
    if present and isinstance(stored, dict) and stored != identity:
        other = ', '.join(f'{name} {brief(value)}' for name, value in stored.items())
        raise UserError(
            f"--work-dir='{out}' holds the report of another study ({other}). Fix: name another "
            'folder, or remove this one.'
        )
    if present and stored is None and PAGE not in present:
        raise UserError(
            f"--work-dir='{out}' holds {listing(present)} of another command, which the report "
            'would replace. Fix: name another folder.'
        )
    write_json(identity, out / OWNER)
