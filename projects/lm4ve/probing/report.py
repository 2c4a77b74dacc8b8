"""What a study leaves: a table, a picture, a page that can be sent, CSV files and the sentence."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lm4ve.ablation.report import number, p_value, span
from lm4ve.files import write_text
from lm4ve.probing.features import Features
from lm4ve.probing.study import Outcome
from lm4ve.probing.variants import BATCH
from lm4ve.probing.verdict import Comparison, conclude, interval, points
from lm4ve.tasks.base.pictures import save_figure

Rows = list[dict[str, Any]]
_COLORS = dict(better='C2', worse='C3', equal='C0')


def warn(features: Features, outcome: Outcome, block: str) -> list[str]:
    """Return what a reader has to know before the numbers."""
    train, test = (len(features.splits[s]) for s in ('train', 'test'))
    mappers = 2 * features.tokens.shape[-1] * outcome.profiles[block].embed_dims
    found = []
    if train < mappers:
        found.append(
            f'The two mappers have {mappers:,} parameters, and there are {train:,} pictures to '
            f'train: more pictures may change the answer.'
        )
    if test < 300:
        found.append(f'Of {test:,} test pictures, one is worth {points(100 / test)}.')
    for name in sorted(outcome.edges):
        rate = outcome.rates[name]
        found.append(f"The best rate of '{name}', {rate:g}, is at the edge of those tried.")
    return found


def accuracies(outcome: Outcome) -> dict[str, np.ndarray]:
    """Return variant -> accuracy in per cent ``[seeds]``."""
    return {name: 100 * correct.mean(1) for name, correct in outcome.correct.items()}


def variant_rows(outcome: Outcome, comparisons: Sequence[Comparison], block: str) -> Rows:
    """Return the table: a row for each variant; differences are of one frozen block from it."""
    mine = {c.against: c for c in comparisons if c.block == block}
    rows = []
    for name, values in accuracies(outcome).items():
        c, profile = mine.get(name), outcome.profiles[name]
        edge = ' (edge)' if name in outcome.edges else ''
        row: dict[str, Any] = dict(variant=name, accuracy=f'{values.mean():.2f}')
        row['95 % interval'] = span(*interval(values, 0.95))
        row[f'{block} - it'] = number(c.difference, '+') if c else ''
        row['over seeds'] = span(*c.seeds, '+') if c else ''
        row['over pictures'] = span(*c.pictures, '+') if c else ''
        row["Holm's p"] = p_value(c.holm) if c else ''
        row[f'{block} is'] = c.words if c else ''
        row['trainable'] = f'{profile.trainable:,}'
        row['MFLOP'] = number(profile.operations / 1e6)
        row['rate'] = f'{outcome.rates[name]:g}{edge}'
        row['seconds'] = number(median(outcome.seconds[name]))
        rows.append(row)
    return rows


def comparison_rows(comparisons: Sequence[Comparison]) -> Rows:
    """Return every comparison, with all digits."""
    names = 'seeds_low', 'seeds_high', 'pictures_low', 'pictures_high'
    return [
        dict(block=c.block, against=c.against, difference=c.difference)
        | dict(zip(names, (*c.seeds, *c.pictures), strict=True))
        | dict(p=c.p, holm=c.holm, verdict=c.verdict, needed=c.needed or '')
        for c in comparisons
    ]


def draw(
    outcome: Outcome, comparisons: Sequence[Comparison], block: str, margin: float, title: str
) -> Figure:
    """Draw accuracies with a point for each seed, and the frozen block's differences."""
    scores, mine = accuracies(outcome), {c.against: c for c in comparisons if c.block == block}
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(scores)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    right.axvspan(-margin, margin, color='0.9', label=f'{points(margin)} or less')
    right.axvline(0, color='0.5', lw=0.8)
    for y, (name, values) in enumerate(scores.items()):
        low, high = interval(values, 0.95)
        mean, color = values.mean(), 'C1' if name == block else 'C0'
        left.plot(values, [y] * len(values), 'o', ms=4, alpha=0.35, c=color)
        left.errorbar(
            mean, y, xerr=[[mean - low], [high - mean]], fmt='|', ms=14, capsize=4, c=color
        )
        if name in mine:
            c = mine[name]
            low, high = c.seeds
            ends = [[c.difference - low], [high - c.difference]]
            style = dict(fmt='o', ms=5, capsize=4, c=_COLORS.get(c.verdict, '0.4'))
            right.errorbar(c.difference, y, xerr=ends, **style)
            right.plot(c.pictures, [y, y], lw=5, alpha=0.25, c=style['c'], solid_capstyle='butt')
    left.set_yticks(range(len(scores)), scores)
    left.invert_yaxis()
    left.set_xlabel('test accuracy [%]; points: seeds; bars: mean, 95 % interval', fontsize=9)
    text = (
        f"'{block}' minus the variant [points]\nthin: 95 % interval over seeds, wide: over pictures"
    )
    right.set_xlabel(text, fontsize=9)
    right.legend(fontsize=8, loc='best')
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def write_report(
    features: Features,
    outcome: Outcome,
    comparisons: Sequence[Comparison],
    out: Path,
    console: Console,
    facts: Mapping[str, str],
) -> str:
    """Write all files, print the table and the sentence, and return the sentence.

    Args:
        features (Features): The tokens.
        outcome (Outcome): The trainings.
        comparisons (Sequence[Comparison]): From :func:`lm4ve.probing.verdict.compare`.
        out (Path): The folder.
        console (Console): Prints.
        facts (Mapping[str, str]): 'rule' and 'command', for the page.
    """
    block, margin = outcome.best_block(), comparisons[0].margin
    variants = {v.name: (v.family, v.words) for v in outcome.variants}
    sentence = conclude(comparisons, block, variants)
    title = f'{features.encoder} on {features.data}'
    rows, pairs = variant_rows(outcome, comparisons, block), comparison_rows(comparisons)
    seeds = len(outcome.correct[block])
    tables = {
        'results.csv': [
            dict(variant=name, seed=seed, accuracy=value, rate=outcome.rates[name])
            | dict(steps=outcome.steps, trainable=outcome.profiles[name].trainable)
            | dict(operations=outcome.profiles[name].operations)
            for name, values in accuracies(outcome).items()
            for seed, value in enumerate(values)
        ],
        'comparisons.csv': pairs,
        'tuning.csv': [
            dict(variant=name, rate=rate, accuracy=value, chosen=int(rate == outcome.rates[name]))
            for name, by_rate in outcome.tuning.items()
            for rate, value in by_rate.items()
        ],
        'timings.csv': [
            dict(variant=name, seed=seed, seconds=value)
            for name, values in outcome.seconds.items()
            for seed, value in enumerate(values)
        ],
    }
    for name, content in tables.items():
        write_text(pd.DataFrame(content).to_csv(index=False), out / name)
    figure = draw(outcome, comparisons, block, margin, title)
    save_figure(figure, out / 'plot.png', dpi=140, metadata=dict(Software=None))
    warnings = warn(features, outcome, block)
    sizes = {s: f'{len(i):,}' for s, i in features.splits.items()}
    recipe = (
        f'{sizes["train"]} pictures to train, {sizes["val"]} to tune the rate, {sizes["test"]} to '
        f'test, {len(features.classes)} classes; tokens {list(features.tokens.shape[2:])}, '
        f'standardized by channel. AdamW, one cycle, {outcome.steps} steps of {BATCH}; rates are '
        f'tuned on two seeds of their own, and {seeds} seeds then train on both first parts. The '
        f'test pictures decide nothing.'
    )
    several = {'Every comparison': pairs} if len(pairs) >= len(rows) else {}
    page = dict(facts, title=title, sentence=sentence, warnings=warnings, recipe=recipe)
    page['tables'] = {'Variants': rows, **several}
    page['picture'] = base64.b64encode((out / 'plot.png').read_bytes()).decode()
    template = Path(__file__).with_name('page.html').read_text(encoding='utf-8')
    text = Environment(autoescape=True).from_string(template).render(page)
    write_text(text, out / 'report.html')
    write_text(f'{sentence}\n', out / 'sentence.txt')
    _print(rows, title, console)
    for warning in warnings:
        console.print(f'Note: {warning}', highlight=False, markup=False)
    console.print(f'\n{sentence}\n', highlight=False, markup=False, style='bold')
    console.print(f'Report: {out / "report.html"}', highlight=False, markup=False)
    return sentence


def _print(rows: Rows, title: str, console: Console) -> None:
    table = Table(*rows[0], title=escape(title))
    for row in rows:
        table.add_row(*map(escape, row.values()))
    # Wide enough for every column where there is no terminal.
    Console(file=console.file, width=max(console.width, 170)).print(table)
