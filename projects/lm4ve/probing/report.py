"""What a study leaves: a table, a picture, a page that can be sent, CSV files and the sentence."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lm4ve.ablation.report import number, p_value
from lm4ve.files import write_text
from lm4ve.probing.study import Study
from lm4ve.probing.variants import BATCH
from lm4ve.probing.verdict import Comparison, conclude, interval, points
from lm4ve.tasks.base.pictures import save_figure

_COLORS = dict(better='C2', worse='C3', equal='C0')


def warn(study: Study) -> list[str]:
    """Return what a reader has to know before the numbers."""
    train, test = (len(study.features.splits[s]) for s in ('train', 'test'))
    dims = study.profiles[study.names('frozen')[0]].embed_dims
    mappers, found = 2 * study.features.tokens.shape[-1] * dims, []
    if train < mappers:
        text = f'{train:,} pictures train the {mappers:,} parameters of the two mappers'
        found.append(f'{text}: more pictures may change the answer.')
    if test < 300:
        found.append(f'Of {test:,} test pictures, one is worth {points(100 / test)}.')
    if study.plan['steps'] < 300:
        text = f'Trainings are short ({study.plan["steps"]} steps)'
        found.append(f'{text}: longer ones (--minutes) may change the answer.')
    edges = [
        f"'{v.name}' ({study.rates[v.name]:g})" for v in study.variants if study.is_edge(v.name)
    ]
    if edges:
        found.append(
            f'The best rate is the smallest or largest that was tried: {", ".join(edges)}.'
        )
    return found


def variant_rows(study: Study, comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Return a row for each variant, with the differences of one block from it."""
    mine, rows = {c.against: c for c in comparisons}, []
    names = 'difference', 'over seeds', 'over both', "Holm's p", f"'{comparisons[0].block}' is"
    for name, scores in accuracies(study).items():
        row = {'variant': name, 'accuracy': f'{scores.mean():.2f}'}
        row['95 % interval'] = _span(interval(scores, 0.95), '')
        c, cells = mine.get(name), [''] * len(names)
        if c:
            cells = [f'{c.difference:+.2f}', _span(c.seeds), _span(c.both)]
            cells += [p_value(c.holm), c.words]
        row |= dict(zip(names, cells, strict=True))
        profile = study.profiles[name]
        row['trainable'] = f'{profile.trainable:,}'
        row['MFLOP'] = number(profile.operations / 1e6)
        row['rate'] = f'{study.rates[name]:g}{" (edge)" * study.is_edge(name)}'
        row['seconds'] = number(study.seconds[name])
        rows.append(row)
    return rows


def _span(ends: tuple[float, float], sign: str = '+') -> str:
    return f'{ends[0]:{sign}.2f} to {ends[1]:{sign}.2f}'


def accuracies(study: Study) -> dict:
    """Return variant -> accuracy in per cent, float64 ``[seeds]``."""
    return {v.name: 100 * study.correct[v.name].mean(1) for v in study.variants}


def draw(study: Study, comparisons: Sequence[Comparison], title: str) -> Figure:
    """Draw accuracies with a point for each seed, and the differences of one block."""
    scores, mine = accuracies(study), {c.against: c for c in comparisons}
    block, margin = comparisons[0].block, study.args.margin
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(scores)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    right.axvspan(-margin, margin, color='0.9', label=f'at most {points(margin)}')
    right.axvline(0, color='0.5', lw=0.8)
    for y, (name, values) in enumerate(scores.items()):
        color = 'C1' if name == block else 'C0'
        left.plot(values, [y] * len(values), 'o', ms=4, alpha=0.35, c=color)
        left.plot(interval(values, 0.95), [y, y], c=color)
        left.plot(values.mean(), y, '|', ms=16, mew=2, c=color)
        if c := mine.get(name):
            color = _COLORS.get(c.verdict, '0.4')
            right.plot(c.both, [y, y], lw=7, alpha=0.3, c=color, solid_capstyle='butt')
            right.plot(c.seeds, [y, y], c=color)
            right.plot(c.difference, y, 'o', ms=6, c=color)
    left.set_yticks(range(len(scores)), scores)
    left.invert_yaxis()
    left.set_xlabel('test accuracy [%]: seeds, mean, 95 % interval', fontsize=9)
    text = f"'{block}' minus the variant [points], 95 % intervals:\n"
    text += 'over seeds (thin), over seeds and pictures (wide)'
    right.set_xlabel(text, fontsize=9)
    right.legend(fontsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def write_report(
    study: Study,
    comparisons: Sequence[Comparison],
    out: Path,
    facts: Mapping[str, str],
    console: Console,
) -> str:
    """Write all files, print the table and the sentence, and return the sentence.

    Args:
        study (Study): All is trained.
        comparisons (Sequence[Comparison]): From :func:`lm4ve.probing.verdict.compare`.
        out (Path): The folder.
        facts (Mapping[str, str]): 'rule' and 'command', for the page.
        console (Console): Prints.
    """
    features, margin = study.features, study.args.margin
    block = max(study.names('frozen'), key=lambda name: max(study.tuning[name].values()))
    mine = [c for c in comparisons if c.block == block]
    sentence = conclude(mine, {v.name: v for v in study.variants}, margin)
    title, notes = f'{features.encoder} on {features.data}', warn(study)
    rows = variant_rows(study, mine)
    frame = pd.DataFrame(accuracies(study)).melt(ignore_index=False, var_name='variant')
    frames = {
        'results': frame.reset_index(names='seed').rename(columns=dict(value='accuracy')),
        'comparisons': pd.DataFrame(map(vars, comparisons)),
        'tuning': pd.DataFrame(study.tuning).rename_axis('rate').reset_index(),
    }
    for name, content in frames.items():
        write_text(content.to_csv(index=False), out / f'{name}.csv')
    figure = draw(study, mine, title)
    save_figure(figure, out / 'plot.png', dpi=140, metadata=dict(Software=None))
    sizes = ', '.join(f'{len(i):,} {split}' for split, i in features.splits.items())
    recipe = (
        f'Pictures: {sizes}; {len(features.classes)} classes; tokens {features.tokens.shape[2:]}, '
        f'standardized by channel. AdamW, one cycle, {study.plan["steps"]} steps of {BATCH}. The '
        f'rate is tuned on val with two seeds of its own; then {study.plan["seeds"]} train on '
        f'train and val. The test pictures decide nothing.'
    )
    picture = base64.b64encode((out / 'plot.png').read_bytes()).decode()
    page = dict(facts, title=title, sentence=sentence, notes=notes, recipe=recipe, rows=rows)
    template = Path(__file__).with_name('page.html').read_text(encoding='utf-8')
    html = Environment(autoescape=True).from_string(template).render(page, picture=picture)
    write_text(html, out / 'report.html')
    write_text(f'{sentence}\n', out / 'sentence.txt')
    table = Table(*rows[0], title=escape(title))
    for row in rows:
        table.add_row(*map(escape, row.values()))
    # Wide enough for every column where there is no terminal.
    Console(file=console.file, width=max(console.width, 170)).print(table)
    for text in (*(f'Note: {note}' for note in notes), f'\n{sentence}\n', f'Report: {out}'):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    return sentence
