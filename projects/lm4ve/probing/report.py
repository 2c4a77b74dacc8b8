"""What a study leaves: a table, a picture, a page that can be sent, CSV files and the sentence."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lm4ve.ablation.report import number, p_value, print_table
from lm4ve.analysis.sheets import render_page
from lm4ve.draw.figures import save_figure
from lm4ve.errors import UserError, brief, listing
from lm4ve.files import read_json, write_json, write_text
from lm4ve.probing.study import Study
from lm4ve.probing.variants import BATCH
from lm4ve.probing.verdict import Comparison, compare, conclude, interval, points
from lm4ve.runner.rich_console import Console

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

_COLORS = dict(better='C2', worse='C3', equal='C0')


def warn(study: Study) -> Iterator[str]:
    """Yield what a reader has to know before the numbers."""
    features, steps = study.features, study.plan['steps']
    train, test = (len(features.data.splits[s]) for s in ('train', 'test'))
    mappers = 2 * features.shape[-1] * study.variants[study.blocks[0]].embed_dims
    if train < mappers:
        text = f'{train:,} pictures train the {mappers:,} parameters of the two mappers'
        yield f'{text}: more pictures may change the answer.'
    if test < 300:
        yield f'Of {test:,} test pictures, one is worth {points(100 / test)}.'
    if steps < 300:
        yield f'Trainings are short ({steps} steps): longer ones (--minutes) may change the answer.'
    if edges := [
        f"'{n}' ({rate:g})" for n, rate in study.rates.items() if study.is_edge(n)
    ]:
        yield f'The best rate is the smallest or largest that was tried: {", ".join(edges)}.'


def variant_rows(
    study: Study, comparisons: Sequence[Comparison]
) -> list[dict[str, str]]:
    """Return a row for each variant, with the differences of one block from it."""
    mine, rows = {c.against: c for c in comparisons}, []
    for name, variant in study.variants.items():
        scores, c = study.accuracies[name], mine.get(name)
        row = {
            'variant': name,
            'accuracy': f'{scores.mean():.2f}',
            '95 % interval': _span(interval(scores), ''),
            'difference': f'{c.difference:+.2f}' if c else '',
            'over seeds': _span(c.seeds) if c else '',
            'over both': _span(c.both) if c else '',
            "Holm's p": p_value(c.holm) if c else '',
            f"'{comparisons[0].block}' is": c.words if c else '',
            'trainable': f'{variant.trainable:,}',
            'MFLOP': number(variant.operations / 1e6),
            'rate': f'{study.rates[name]:g}{" (edge)" * study.is_edge(name)}',
            'seconds': number(study.seconds[name]),
        }
        rows.append(row)
    return rows


def _span(ends: tuple[float, float], sign: str = '+') -> str:
    return f'{ends[0]:{sign}.2f} to {ends[1]:{sign}.2f}'


def draw(study: Study, comparisons: Sequence[Comparison], title: str) -> Figure:
    """Draw accuracies with a point for each seed, and the differences of one block."""
    scores, mine = study.accuracies, {c.against: c for c in comparisons}
    block, margin = comparisons[0].block, study.args.margin
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(scores)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    right.axvspan(-margin, margin, color='0.9', label=f'at most {points(margin)}')
    right.axvline(0, color='0.5', lw=0.8)
    for y, (name, values) in enumerate(scores.items()):
        color = 'C1' if name == block else 'C0'
        left.plot(values, [y] * len(values), 'o', ms=4, alpha=0.35, c=color)
        left.plot(interval(values), [y, y], c=color)
        left.plot(values.mean(), y, '|', ms=16, mew=2, c=color)
        if c := mine.get(name):
            color = _COLORS.get(c.verdict, '0.4')
            right.plot(c.both, [y, y], lw=7, alpha=0.3, c=color, solid_capstyle='butt')
            right.plot(c.seeds, [y, y], c=color)
            right.plot(c.difference, y, 'o', ms=6, c=color)
    left.set_yticks(range(len(scores)), scores)
    left.invert_yaxis()
    left.set_xlabel('test accuracy [%]: seeds, mean, 95 % interval', fontsize=9)
    kinds = 'over seeds (thin), over seeds and pictures (wide)'
    text = f"'{block}' minus the variant [points], 95 % intervals:\n{kinds}"
    right.set_xlabel(text, fontsize=9)
    right.legend(fontsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def write_report(study: Study, out: Path, rule: str, command: str) -> None:
    """Write all files, print the table and the sentence.

    Args:
        study (Study): All is trained.
        out (Path): The folder.
        rule, command (str): For the page.
    """
    features, margin = study.features, study.args.margin
    comparisons = compare(study.correct, study.blocks, margin)
    block = max(study.blocks, key=lambda name: max(study.tuning[name].values()))
    mine = [c for c in comparisons if c.block == block]
    sentence = conclude(mine, study.variants, margin)
    frame = pd.DataFrame(study.accuracies)
    frame = frame.melt(var_name='variant', value_name='accuracy', ignore_index=False)
    frames = {
        'results': frame.reset_index(names='seed'),
        'comparisons': pd.DataFrame(map(vars, comparisons)),
        'tuning': pd.DataFrame(study.tuning).rename_axis('rate').reset_index(),
    }
    for name, content in frames.items():
        write_text(content.to_csv(index=False), out / f'{name}.csv')
    title, notes = f'{features.encoder} on {features.data.name}', [*warn(study)]
    picture, rows = out / 'plot.png', variant_rows(study, mine)
    save_figure(
        draw(study, mine, title), picture, dpi=140, metadata=dict(Software=None)
    )
    sizes = ', '.join(
        f'{len(i):,} {split}' for split, i in features.data.splits.items()
    )
    recipe = (
        f'Pictures: {sizes}; {len(features.data.classes)} classes; tokens {features.shape[2:]}, '
        f'standardized by channel. AdamW, one cycle, {study.plan["steps"]} steps of {BATCH}. The '
        f'rate is tuned on val with two seeds of its own; then {study.plan["seeds"]} train on '
        f'train and val. The test pictures decide nothing.'
    )
    texts = dict(
        title=title, sentence=sentence, recipe=recipe, rule=rule, command=command
    )
    template = Path(__file__).with_name('report.html')
    render_page(template, out / PAGE, **texts, notes=notes, rows=rows, picture=picture)
    write_text(f'{sentence}\n', out / 'sentence.txt')
    print_table(console := Console(), rows, title)
    for text in (
        *(f'Note: {note}' for note in notes),
        f'\n{sentence}\n',
        f'Report: {out}',
    ):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def claim_folder(out: Path, study: Mapping[str, str]) -> None:
    """Note in a folder whose report it is for.

    Args:
        out (Path): The folder.
        study (Mapping[str, str]): The names of encoder, data and block.

    Raises:
        UserError: It holds the report of another study, or files of another command
            that a report would replace.
    """
    # However a path is written, it is one place.
    own = {k: os.path.realpath(v) if os.path.exists(v) else v for k, v in study.items()}
    known = read_json(out / OWNER)
    there = [name for name in FILES if (out / name).exists()]
    if there and isinstance(known, dict) and known != own:
        theirs = ', '.join(f'{name} {brief(value)}' for name, value in known.items())
        raise UserError(
            f"--work-dir='{out}' holds the report of another study ({theirs}). Fix: name another "
            'folder, or remove this one.'
        )
    if there and known is None and PAGE not in there:
        raise UserError(
            f"--work-dir='{out}' holds {listing(there)} of another command, which the report "
            'would replace. Fix: name another folder.'
        )
    write_json(own, out / OWNER)
