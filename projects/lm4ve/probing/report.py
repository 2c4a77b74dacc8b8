"""Writes a study's report: a table, a plot, a page that can be sent, CSV files and a sentence."""

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
from lm4ve.probing.results import RECIPE
from lm4ve.probing.sentence import conclude
from lm4ve.probing.study import Study, StudyResults
from lm4ve.probing.tuning import WORDS
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
    """Write the files of a study's report, and print the table and the sentence.

    The report is about one block: of several layers, the one with the best accuracy in
    tuning. ``comparisons.csv`` has all of them.

    Args:
        study (Study): The study.
        results (StudyResults): Its results.
        out (Path): The folder.
        rule (str): How verdicts are reached, for the page.
        command (str): The command line that repeats the study, for the page.
    """
    features = study.features
    margin = study.settings.margin
    comparisons = compare(results.correct, results.pairs, margin)
    of_blocks = []
    sentences = []
    for block in best_blocks(study, results):
        of_block = [
            comparison for comparison in comparisons if comparison.block == block
        ]
        of_blocks += of_block
        sentences.append(conclude(of_block, study.heads, margin))
    sentence = '\n'.join(sentences)
    title = f'{features.encoder} on {features.data.name}'
    notes = notes_on(study, results)
    rows = table_rows(study, results, of_blocks)
    plot = out / 'plot.png'

    _write_tables(results, comparisons, out)
    figure = draw_study(results, of_blocks, margin, title)
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


def best_blocks(study: Study, results: StudyResults) -> list[str]:
    """Return the block that the report is about, one for each number of shots.

    It is the one with the best accuracy in tuning.
    """
    best: dict[int, str] = {}
    for name in study.blocks:
        shots = study.heads[name].shots
        first = best.setdefault(shots, name)
        if results.tuned_accuracy(name) > results.tuned_accuracy(first):
            best[shots] = name
    return list(best.values())


def notes_on(study: Study, results: StudyResults) -> list[str]:
    """Return warnings for the reader: few pictures, short trainings, rates at an edge."""
    features = study.features
    train_pictures = len(features.data.splits['train'])
    test_pictures = len(features.data.splits['test'])
    channels = features.shape[-1]
    width = study.heads[study.blocks[0]].embed_dims
    mappers = 2 * channels * width  # their parameters: C to D, and D to C
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
    for name, value in results.tuned.items():
        if results.is_edge(name):
            edges.append(f"'{name}' ({value:g})")
    if edges:
        notes.append(
            'The best value is the smallest or largest that was tried: '
            f'{", ".join(edges)}.'
        )
    return notes


def table_rows(
    study: Study, results: StudyResults, comparisons: Sequence[Comparison]
) -> list[dict[str, str]]:
    """Return the table of a report: a row for each head, column -> cell.

    Args:
        study (Study): The study.
        results (StudyResults): Its results.
        comparisons (Sequence[Comparison]): The comparisons of one block with other
            heads. A head that it was not compared with has empty cells.
    """
    comparison_with = {comparison.against: comparison for comparison in comparisons}
    blocks = list(dict.fromkeys(comparison.block for comparison in comparisons))
    block = blocks[0] if len(blocks) == 1 else 'frozen'
    rows = []
    for name, head in study.heads.items():
        accuracies = results.accuracies[name]
        interval = ''
        if len(accuracies) > 1:
            low, high = confidence_interval(accuracies)
            interval = f'{low:.2f} to {high:.2f}'
        word = WORDS.get(head.family, 'rate')
        tuned = f'{word} {results.tuned[name]:g}'
        if results.is_edge(name):
            tuned += ' (edge)'
        row = {
            'variant': name,
            'accuracy': f'{accuracies.mean():.2f}',
            '95 % interval': interval,
            'recall': f'{results.recalls[name].mean():.2f}',
        }
        row.update(_comparison_cells(comparison_with.get(name), block))
        row['trainable'] = f'{head.trainable:,}'
        row['MFLOP'] = format_number(head.operations / 1e6)
        row['tuned'] = tuned
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
    """Return the interval of a difference as text, with signs: '-0.50 to +1.20'."""
    low, high = interval
    return f'{low:+.2f} to {high:+.2f}'


def _write_tables(
    results: StudyResults, comparisons: Sequence[Comparison], out: Path
) -> None:
    """Write the CSV files of a report.

    ``results.csv`` has a row for each head and seed, ``comparisons.csv`` one for each
    comparison of a block with another head, and ``tuning.csv`` one for each learning
    rate, with a column for each head.
    """
    rows = []
    for name, accuracies in results.accuracies.items():
        for seed, accuracy in enumerate(accuracies):
            recall = results.recalls[name][seed]
            rows.append(dict(seed=seed, variant=name, accuracy=accuracy, recall=recall))
    tables = {
        'results.csv': pd.DataFrame(rows),
        'comparisons.csv': pd.DataFrame([vars(c) for c in comparisons]),
        'tuning.csv': pd.DataFrame(results.tuning).rename_axis('value').reset_index(),
    }
    for name, table in tables.items():
        write_text(table.to_csv(index=False), out / name)


def _describe_recipe(study: Study) -> str:
    """Return the paragraph of the page about data and training.

    Its fixed words describe what :class:`lm4ve.probing.training.Trainer` and
    :class:`Study` do, and are changed with them.
    """
    data = study.features.data
    sizes = []
    for split, indices in data.splits.items():
        sizes.append(f'{len(indices):,} {split}')
    _, _, tokens, channels = study.features.shape
    return (
        f'Pictures: {", ".join(sizes)}; {len(data.classes)} classes; tokens '
        f'({tokens}, {channels}), standardized by channel. AdamW, one cycle, '
        f'{study.plan.steps} steps of {BATCH}, products in {study.settings.dtype} '
        f'(recipe {RECIPE}). The rate is tuned on val with a seed of its own, the two '
        f'best with a second; then up to {study.plan.seeds} train on train and val, '
        'few shots on train. The test pictures decide nothing.'
    )


def claim_folder(out: Path, study: Mapping[str, str]) -> None:
    """Record in a folder which study's report it holds; refuse a folder that holds others.

    Args:
        out (Path): The folder.
        study (Mapping[str, str]): 'encoder', 'data' and so on -> what the user named.

    Raises:
        UserError: It holds the report of another study, or files of another command
            that a report would replace.
    """
    identity = {}
    for name, value in study.items():
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
