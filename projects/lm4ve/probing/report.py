"""What a study leaves: a table, a picture, a page that can be sent, CSV files and the sentence."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lm4ve.ablation.cells import format_number, format_p_value
from lm4ve.ablation.statistics import confidence_interval
from lm4ve.analysis.pages import render_page
from lm4ve.draw.figures import save_figure
from lm4ve.errors import UserError, brief, listing
from lm4ve.files import read_json, write_json, write_text
from lm4ve.probing.heads import BATCH
from lm4ve.probing.plot import draw_study
from lm4ve.probing.sentence import conclude
from lm4ve.probing.study import Study, StudyResults
from lm4ve.probing.verdict import Comparison, compare, points
from lm4ve.runner.rich_console import Console
from lm4ve.runner.tables import print_table

#: Which study a folder's report is of.
OWNER = '.study.json'
PAGE = 'report.html'
#: What a report consists of.
FILES = (
    PAGE,
    'results.csv',
    'comparisons.csv',
    'tuning.csv',
    'plot.png',
    'sentence.txt',
)
#: Fewer test pictures, or steps, get a note.
_FEW_PICTURES = 300
_FEW_STEPS = 300


def write_report(
    study: Study, results: StudyResults, out: Path, rule: str, command: str
) -> None:
    """Write all files, print the table and the sentence.

    Args:
        study (Study): What was trained.
        results (StudyResults): What it gave.
        out (Path): The folder.
        rule, command (str): For the page.
    """
    features = study.features
    margin = study.settings.margin
    comparisons = compare(results.correct, study.blocks, margin)
    # Of several layers, the report is about the one with the best accuracy in tuning.
    block = max(study.blocks, key=lambda name: max(results.tuning[name].values()))
    own = [comparison for comparison in comparisons if comparison.block == block]
    sentence = conclude(own, study.heads, margin)
    title = f'{features.encoder} on {features.data.name}'
    notes = notes_on(study, results)
    rows = table_rows(study, results, own)
    plot = out / 'plot.png'

    _write_tables(results, comparisons, out)
    figure = draw_study(results, own, margin, title)
    save_figure(figure, plot, dpi=140, metadata=dict(Software=None))
    render_page(
        Path(__file__).with_name('report.html'),
        out / PAGE,
        title=title,
        sentence=sentence,
        recipe=_describe_recipe(study),
        rule=rule,
        command=command,
        notes=notes,
        rows=rows,
        picture=plot,
    )
    write_text(f'{sentence}\n', out / 'sentence.txt')

    console = Console()
    print_table(title, rows, console=console)
    lines = [f'Note: {note}' for note in notes]
    lines += [f'\n{sentence}\n', f'Report: {out}']
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def notes_on(study: Study, results: StudyResults) -> list[str]:
    """Return what a reader has to know before the numbers."""
    features = study.features
    train_pictures = len(features.data.splits['train'])
    test_pictures = len(features.data.splits['test'])
    width = study.heads[study.blocks[0]].embed_dims
    mappers = 2 * features.shape[-1] * width
    steps = study.plan.steps
    notes = []
    if train_pictures < mappers:
        notes.append(
            f'{train_pictures:,} pictures train the {mappers:,} parameters of the two '
            'mappers: more pictures may change the answer.'
        )
    if test_pictures < _FEW_PICTURES:
        worth = points(100 / test_pictures)
        notes.append(f'Of {test_pictures:,} test pictures, one is worth {worth}.')
    if steps < _FEW_STEPS:
        notes.append(
            f'Trainings are short ({steps} steps): longer ones (--minutes) may change '
            'the answer.'
        )
    edges = []
    for name, rate in results.rates.items():
        if results.is_edge(name):
            edges.append(f"'{name}' ({rate:g})")
    if edges:
        notes.append(
            'The best rate is the smallest or largest that was tried: '
            f'{", ".join(edges)}.'
        )
    return notes


def table_rows(
    study: Study, results: StudyResults, comparisons: Sequence[Comparison]
) -> list[dict[str, str]]:
    """Return a row of cells by column for each head.

    Args:
        study (Study): What was trained.
        results (StudyResults): What it gave.
        comparisons (Sequence[Comparison]): Those of one block, whose differences from
            the other heads are shown.
    """
    comparison_with = {comparison.against: comparison for comparison in comparisons}
    block = comparisons[0].block
    rows = []
    for name, head in study.heads.items():
        accuracies = results.accuracies[name]
        low, high = confidence_interval(accuracies)
        rate = f'{results.rates[name]:g}'
        if results.is_edge(name):
            rate += ' (edge)'
        row = {
            'variant': name,
            'accuracy': f'{accuracies.mean():.2f}',
            '95 % interval': f'{low:.2f} to {high:.2f}',
        }
        row.update(_comparison_cells(comparison_with.get(name), block))
        row['trainable'] = f'{head.trainable:,}'
        row['MFLOP'] = format_number(head.operations / 1e6)
        row['rate'] = rate
        row['seconds'] = format_number(results.seconds[name])
        rows.append(row)
    return rows


def _comparison_cells(comparison: Comparison | None, block: str) -> dict[str, str]:
    """Return the cells of a comparison with the block; empty ones where there is none."""
    columns = (
        'difference',
        'over seeds',
        'over both',
        "Holm's p",
        f"'{block}' is",
    )
    if comparison is None:
        return dict.fromkeys(columns, '')
    cells = (
        f'{comparison.difference:+.2f}',
        _format_difference(comparison.seeds),
        _format_difference(comparison.both),
        format_p_value(comparison.holm),
        comparison.words,
    )
    return dict(zip(columns, cells, strict=True))


def _format_difference(interval: tuple[float, float]) -> str:
    low, high = interval
    return f'{low:+.2f} to {high:+.2f}'


def _write_tables(
    results: StudyResults, comparisons: Sequence[Comparison], out: Path
) -> None:
    """Write the CSV files: a row for each seed, comparison and rate."""
    accuracies = pd.DataFrame(results.accuracies).melt(
        var_name='variant', value_name='accuracy', ignore_index=False
    )
    tables = {
        'results.csv': accuracies.reset_index(names='seed'),
        'comparisons.csv': pd.DataFrame([vars(c) for c in comparisons]),
        'tuning.csv': pd.DataFrame(results.tuning).rename_axis('rate').reset_index(),
    }
    for name, table in tables.items():
        write_text(table.to_csv(index=False), out / name)


def _describe_recipe(study: Study) -> str:
    """Return how it was trained, in sentences for the page."""
    features = study.features
    sizes = []
    for split, indices in features.data.splits.items():
        sizes.append(f'{len(indices):,} {split}')
    return (
        f'Pictures: {", ".join(sizes)}; {len(features.data.classes)} classes; tokens '
        f'{features.shape[2:]}, standardized by channel. AdamW, one cycle, '
        f'{study.plan.steps} steps of {BATCH}. The rate is tuned on val with two seeds '
        f'of its own; then {study.plan.seeds} train on train and val. The test pictures '
        'decide nothing.'
    )


def claim_folder(out: Path, study: Mapping[str, str]) -> None:
    """Note in a folder whose report it is for.

    Args:
        out (Path): The folder.
        study (Mapping[str, str]): The names of encoder, data and block.

    Raises:
        UserError: It holds the report of another study, or files of another command
            that a report would replace.
    """
    own = {}
    for name, value in study.items():
        # However a path is written, it is one place.
        own[name] = os.path.realpath(value) if os.path.exists(value) else value
    stored = read_json(out / OWNER)
    present = [name for name in FILES if (out / name).exists()]
    if present and isinstance(stored, dict) and stored != own:
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
    write_json(own, out / OWNER)
