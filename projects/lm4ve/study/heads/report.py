"""Writes a study's report: a table, a plot, a page that can be sent, CSV files and a sentence."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lm4ve.analysis.pages import render_page
from lm4ve.draw.figures import save_figure
from lm4ve.errors import UserError, brief, listing
from lm4ve.files import read_json, write_csv, write_json, write_text
from lm4ve.runner.rich_console import Console
from lm4ve.runner.tables import print_table
from lm4ve.study.cells import points
from lm4ve.study.compare import Comparison, compare
from lm4ve.study.heads.answers import Answer, make_answer
from lm4ve.study.heads.examples import choose_examples, has_pictures
from lm4ve.study.heads.head import BATCH
from lm4ve.study.heads.plot import draw_study
from lm4ve.study.heads.stored import (
    PICTURES,
    RESULTS,
    STUDY,
    TIMINGS,
    TUNING,
    StoredStudy,
)
from lm4ve.study.heads.study import StudyResults
from lm4ve.study.heads.table import (
    Row,
    class_rows,
    confusion_rows,
    cost_rows,
    narrow_rows,
    result_rows,
)
from lm4ve.study.heads.training import RECIPE
from lm4ve.study.pictures.data import ProbeData

#: Which study a folder's report is of.
OWNER = '.study.json'
PAGE = 'report.html'
#: What a report consists of.
FILES = (
    PAGE,
    STUDY,
    PICTURES,
    RESULTS,
    TUNING,
    TIMINGS,
    'comparisons.csv',
    'classes.csv',
    'confusions.csv',
    'plot.png',
    'sentence.txt',
)
#: Fewer test pictures get a note.
_FEW_PICTURES = 300
#: Rows of the page's tables; the CSV files have all.
_MOST_CLASSES = 20
_MOST_CONFUSIONS = 10
#: Columns of a terminal that the table of results needs.
_TABLE_WIDTH = 115
_TABLE_WORDS = (
    'Accuracy and recall (mean over classes) in per cent of the test pictures, ± half of the '
    '95 % interval over seeds; differences in points, with the interval that is judged.'
)


def write_report(study: StoredStudy, out: Path, data: ProbeData | None) -> None:
    """Write what follows from a study's files, and print the answer, the table and the notes.

    Args:
        study (StoredStudy): The study, as it was read.
        out (Path): The folder.
        data (ProbeData, optional): The data with their items. The page shows some of
            them if they are pictures.
    """
    results = study.results
    margin = study.settings.margin
    comparisons = compare_heads(study, results)
    found = make_answer(study, results, comparisons)
    names = list(results.accuracies)
    table = result_rows(names, results, comparisons, margin)
    notes = notes_on(study, results)
    pair = (study.block, found.reference)
    classes = class_rows(study, results, pair)
    confusions = confusion_rows(study, results, pair)
    examples = []
    if data is not None and has_pictures(data):
        examples = choose_examples(data, results, pair)
    plot = out / 'plot.png'

    _write_tables(comparisons, classes, confusions, out)
    figure = draw_study(comparisons, results, margin, found.title)
    save_figure(figure, plot, dpi=140, metadata=dict(Software=None))
    render_page(
        Path(__file__).with_name('report.html'),
        out / PAGE,
        title=found.title,
        answer=found,
        rows=table,
        picture=plot,
        classes=classes[:_MOST_CLASSES],
        class_count=len(classes),
        confusions=confusions[:_MOST_CONFUSIONS],
        confusion_count=len(confusions),
        test_count=len(study.features.data.splits['test']),
        pair=pair,
        examples=examples,
        notes=notes,
        warnings=study.warnings,
        rule=study.rule,
        costs=cost_rows(study, results),
        recipe=_describe_recipe(study),
        command=study.command,
    )
    write_text(f'{found.sentence}\n{found.details}\n', out / 'sentence.txt')
    _print_report(found, table, notes, out)


def compare_heads(study: StoredStudy, results: StudyResults) -> list[Comparison]:
    """Return the comparisons of a study, each with its verdict."""
    data = study.features.data
    test = data.splits['test']
    scores = {name: 100.0 * own for name, own in results.correct.items()}
    most_frequent = np.bincount(data.labels[test]).max() / len(test)
    return compare(
        scores,
        results.pairs,
        study.settings.margin,
        groups=data.groups[test],
        chance=100 * float(most_frequent),
    )


def _print_report(
    found: Answer, rows: list[Row], notes: Sequence[str], out: Path
) -> None:
    """Print the answer, the table, the lines below it, and where the report is."""
    console = Console()

    def print_line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    print_line(f'\n{found.sentence}\n')
    width = None
    if console.is_terminal:  # a file has room
        width = console.width
    if width is not None and width < _TABLE_WIDTH:
        rows = narrow_rows(rows)
    print_table(found.title, rows, console=console, width=width)
    print_line(_TABLE_WORDS)
    print_line(found.details)
    for note in notes:
        print_line(f'Note: {note}')
    print_line(f'Report: {out / PAGE}')


def notes_on(study: StoredStudy, results: StudyResults) -> list[str]:
    """Return warnings for the reader: few pictures, short trainings, rates at an edge."""
    features = study.features
    splits = features.data.splits
    train_pictures = len(splits['train']) + len(splits['val'])
    if study.settings.shots:
        train_pictures = study.settings.shots * len(features.data.classes)
    test_pictures = len(features.data.splits['test'])
    channels = features.shape[-1]
    width = study.heads[study.block].embed_dims
    mappers = 2 * channels * width  # their parameters: C to D, and D to C
    notes = []
    if train_pictures < mappers:
        notes.append(
            f'{train_pictures:,} pictures train the {mappers:,} parameters of the two '
            'mappers: more pictures may change the answer.'
        )
    if test_pictures < _FEW_PICTURES:
        worth = points(100 / test_pictures)
        notes.append(f'Of {test_pictures:,} test pictures, one is worth {worth}.')
    without_score = []
    for name, predicted in results.predicted.items():
        if (predicted < 0).any():
            without_score.append(f"'{name}'")
    if without_score:
        notes.append(
            'Scores were not finite, and their pictures count as wrong, in trainings of '
            f'{", ".join(without_score)}.'
        )
    edges = []
    for name in results.values:
        if results.is_edge(name):
            edges.append(f"'{name}' ({results.describe_values(name)})")
    if edges:
        notes.append(
            'The best learning rate (of logreg: C) is the smallest or largest that was '
            f'tried: {", ".join(edges)}. --rates tries others.'
        )
    return notes


def _write_tables(
    comparisons: Sequence[Comparison],
    classes: list[Row],
    confusions: list[Row],
    out: Path,
) -> None:
    """Write the CSV files that follow from the results.

    ``comparisons.csv`` has a row for each comparison of the block with another head;
    ``classes.csv`` and ``confusions.csv`` are about the block and the linear probe.
    """
    tables = {
        'comparisons.csv': pd.DataFrame([vars(c) for c in comparisons]),
        'classes.csv': pd.DataFrame(classes),
        'confusions.csv': pd.DataFrame(confusions),
    }
    for name, table in tables.items():
        rows = table.itertuples(index=False, name=None)
        write_csv(table.columns, rows, out / name)


def _describe_recipe(study: StoredStudy) -> str:
    """Return the paragraph of the page about data and training.

    Its fixed words describe what :class:`lm4ve.study.heads.training.Trainer` and
    :class:`Study` do, and are changed with them.
    """
    data = study.features.data
    sizes = []
    for split, indices in data.splits.items():
        sizes.append(f'{len(indices):,} {split}')
    _, tokens, channels = study.features.shape
    settings = study.settings
    return (
        f'Pictures: {", ".join(sizes)}; {len(data.classes)} classes; tokens '
        f'({tokens}, {channels}), standardized by channel. AdamW, one cycle, '
        f'{settings.steps} steps of {BATCH}, products in {settings.dtype} (recipe '
        f'{RECIPE}). All seeds share a first tuning on val; each of the {settings.seeds} '
        'seeds then draws fit and val pictures of its own, chooses among the values that '
        'the first could not tell apart, and trains on train and val (few shots on train). '
        'The test pictures choose nothing.'
    )


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
