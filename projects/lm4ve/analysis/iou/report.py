"""Pseudo-mask IoU as a table of means with intervals, kept as JSON and CSV, and as pictures.

Two ways to choose the threshold stand side by side. The paper takes the best one of
each image, which looks at the truth; the other is fixed on some images and tried on the
rest.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from lm4ve.analysis.iou import pseudo_masks
from lm4ve.analysis.iou.pseudo_masks import (
    PRIOR,
    VARIANTS,
    Scores,
    TokenMaps,
    token_mask,
)
from lm4ve.draw.figures import save_figure, without_ticks
from lm4ve.files import write_json, write_text

#: Ways to choose the threshold.
CHOICES = ('best per image', 'fixed')
#: What the differences compare, by measure: before and after the block, in the
#: encoder's channels and in the language model's.
PAIRS = dict(
    magnitude=(('encoder', 'after'), ('mapped', 'block')),
    frequency=(('encoder', 'after'), ('mapped', 'block')),
    attention=(('encoder', 'block'),),
)


@dataclass
class Report:
    """The scores of a model on a set of images.

    Attributes:
        frame (pd.DataFrame): A row for each mean over images: ``table`` ('rows': the
            prior, and every map, variant and choice; 'differences': after minus before
            the block, paired, ``point`` is 'after - encoder', for example; 'curves':
            each map as it is at every threshold); ``measure``, ``point``, ``variant``;
            ``threshold_choice``, one of :data:`CHOICES`, '' for the prior;
            ``threshold``, the mean of the best ones; ``images``; ``iou``, ``low`` and
            ``high``, the mean and its 95 % interval, NaN for one image; ``note``, whose
            attention it is.
        thresholds (list[float]): The thresholds that were tried.
        images (int): The number of images that were scored.
        fixing_images (int): On so many of them the thresholds were fixed; rows with a
            fixed threshold are over the others.
        empty (list[str]): The images that were left out, as none of their tokens is
            foreground.
    """

    frame: pd.DataFrame
    thresholds: list[float]
    images: int
    fixing_images: int
    empty: list[str]

    @property
    def prior(self) -> pd.Series:
        """The row of a map that is foreground everywhere."""
        return self.frame.iloc[0]


def bootstrap_mean(
    values: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return mean and 95 % percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    A seed draws the same images whatever the values, so that the interval of
    differences is the paired one. The ends are NaN for a single image.

    Args:
        values (np.ndarray): ``[images]``.
        resamples (int): How often to draw images with replacement.
        seed (int): Seeds the draws.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, np.nan, np.nan
    options = dict(
        n_resamples=resamples, method='percentile', rng=np.random.default_rng(seed)
    )
    options |= dict(batch=max(2**23 // len(values), 1))  # at most 64 MB
    found = stats.bootstrap((values,), np.mean, **options).confidence_interval
    return mean, float(found.low), float(found.high)


def summarize(
    scores: Scores, fixed_share: float = 0.2, resamples: int = 2000, seed: int = 0
) -> Report:
    """Choose thresholds, average over images, and bootstrap the means.

    Args:
        scores (Scores): The IoU of all images.
        fixed_share (float): Share of the images for fixing a threshold.
        resamples (int): The number of bootstrap resamples.
        seed (int): Seeds the split and the bootstrap.
    """
    fixing, rest = pseudo_masks.split_images(len(scores.names), fixed_share, seed)
    columns = [
        'table',
        'measure',
        'point',
        'variant',
        'threshold_choice',
        'threshold',
        'values',
    ]
    found: list[tuple] = []
    for key, table in scores.tables.items():
        if key == PRIOR:
            found.append(('rows', *key, '', None, table[:, 0]))
            continue
        best = float(np.take(scores.thresholds, table.argmax(axis=1)).mean())
        found.append(('rows', *key, CHOICES[0], best, table.max(axis=1)))
        fixed = int(table[fixing].mean(axis=0).argmax())
        found.append(
            ('rows', *key, CHOICES[1], scores.thresholds[fixed], table[rest, fixed])
        )
        if key[2] == VARIANTS[0]:
            for threshold, values in zip(scores.thresholds, table.T, strict=True):
                found.append(('curves', *key, 'the same for all', threshold, values))
    chosen = {row[1:5]: row[-1] for row in found}
    for measure, pairs in PAIRS.items():
        for (before, after), variant, choice in itertools.product(
            pairs, VARIANTS[:2], CHOICES
        ):
            a, b = (chosen.get((measure, p, variant, choice)) for p in (after, before))
            if a is not None and b is not None:
                name = f'{after} - {before}'
                found.append(
                    ('differences', measure, name, variant, choice, None, a - b)
                )
    frame = pd.DataFrame(found, columns=columns)
    values = frame.pop('values')
    frame['images'] = values.map(len)
    frame[['iou', 'low', 'high']] = [bootstrap_mean(v, resamples, seed) for v in values]
    notes = frame['point'].map(scores.notes).fillna('')
    frame['note'] = notes.where(frame['measure'] == 'attention', '')
    counts = len(scores.names), len(fixing)
    return Report(frame, list(scores.thresholds), *counts, scores.empty)


def write(report: Report, path: Path, about: dict[str, Any]) -> None:
    """Write everything as JSON, with what was run, and every row as CSV beside it."""
    plain = report.frame.astype(object).where(
        report.frame.notna(), None
    )  # NaN is not JSON
    content = dict(about, **{k: v for k, v in vars(report).items() if k != 'frame'})
    for name, rows in plain.groupby('table', sort=False):
        content[name] = rows.drop(columns='table').to_dict('records')
    write_json(content, path)
    write_text(report.frame.to_csv(index=False), path.with_suffix('.csv'))


def plot(report: Report, path: Path, title: str = '') -> None:
    """Draw IoU over the threshold, a panel for each measure, with the 95 % band."""
    curves = report.frame[report.frame['table'] == 'curves']
    measures = curves['measure'].unique()
    colors = {point: f'C{i}' for i, point in enumerate(curves['point'].unique())}
    figure = Figure(figsize=(4 * len(measures), 3.6), layout='constrained')
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for ax, measure in zip(axes, measures, strict=True):
        for point, rows in curves[curves['measure'] == measure].groupby(
            'point', sort=False
        ):
            x, style = rows['threshold'], dict(color=colors[point])
            ax.plot(x, rows['iou'], 'o-', ms=3, label=point, **style)
            ax.fill_between(x, rows['low'], rows['high'], alpha=0.2, lw=0, **style)
        ax.axhline(report.prior['iou'], color='.5', ls='--', lw=1, label=PRIOR[0])
        ax.set(title=measure, xlabel='threshold')
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    axes[0].set_ylabel('IoU, mean over images')
    axes[0].set_ylim(bottom=0)  # last: the panels share it
    figure.suptitle(title, fontsize=9)
    save_figure(figure, path, dpi=110)


def tables(report: Report, title: str) -> list[tuple[str, pd.DataFrame]]:
    """Return heading and table for each choice of the threshold, and of the differences."""
    frame = report.frame.assign(cell=report.frame.apply(_cell, axis=1))
    noted = frame[frame['note'] != ''].drop_duplicates(['point', 'note'])
    notes = ''.join(
        f' Attention, {p}: {n}.' for p, n in zip(noted.point, noted.note, strict=True)
    )
    tried = report.images - report.fixing_images
    headings = (
        f'{title}: IoU in %, 95 % bootstrap interval over {report.images} images. Everything is '
        f'foreground: {_cell(report.prior)}.{notes}\nBest threshold of each image (sees the truth)',
        f'Fixed threshold of {report.fixing_images} images, tried on the other {tried}',
        'Behind the block minus before it, paired by image',
    )
    rows, differences = (
        frame[frame['table'] == name] for name in ('rows', 'differences')
    )
    style = dict(values='cell', aggfunc='first', sort=False)
    index, by_choice = ['measure', 'point'], rows.groupby('threshold_choice')
    parts = [by_choice.get_group(choice) for choice in CHOICES]
    pivots = [p.pivot_table(index=index, columns='variant', **style) for p in parts]
    index = [*index, 'variant']
    pivots.append(
        differences.pivot_table(index=index, columns='threshold_choice', **style)
    )
    return [pair for pair in zip(headings, pivots, strict=True) if len(pair[1])]


def _cell(row: pd.Series) -> str:
    sign = '+' if row['table'] == 'differences' else ''
    mean, low, high = (f'{100 * row[k]:{sign}.1f}' for k in ('iou', 'low', 'high'))
    if row['variant'] == VARIANTS[2]:
        return mean
    interval = '(one image)' if np.isnan(row['low']) else f'[{low}, {high}]'
    is_fixed = row['threshold_choice'] == CHOICES[1] and not sign
    return f'{mean} {interval}' + (f' at {row["threshold"]:g}' if is_fixed else '')


# ---------------------------------------------------------------------------- images
class Example(NamedTuple):
    """An image, uint8 ``[H, W, 3]`` RGB, its mask, and its maps with values ``[1, N]``."""

    pixels: np.ndarray
    mask: np.ndarray
    maps: list[TokenMaps]


def draw_examples(
    examples: Sequence[Example], report: Report, rule: str, path: Path, title: str = ''
) -> None:
    """Draw image, mask and pseudo-masks with the fixed thresholds, a row an image.

    Args:
        examples (Sequence[Example]): The images.
        report (Report): Holds the fixed thresholds.
        rule (str): The rule of :func:`token_mask` that the report was made with.
        path (Path): The file to write.
        title (str): The title of the picture.
    """
    rows = report.frame.query("threshold_choice == 'fixed' and variant == 'as is'")
    thresholds = rows.set_index(['table', 'measure', 'point'])['threshold'].to_dict()
    columns = 2 + len(examples[0].maps)
    figure = Figure(
        figsize=(1.15 * columns, 1.3 * len(examples) + 0.6), layout='constrained'
    )
    axes = figure.subplots(len(examples), columns, squeeze=False)
    for row, (pixels, mask, maps) in zip(axes, examples, strict=True):
        truth, _ = token_mask(mask, maps[0].grid, rule)
        shown = [('image', pixels, ''), ('mask', _lit(pixels, truth, maps[0].grid), '')]
        for m in maps:
            truth, valid = token_mask(mask, m.grid, rule)
            threshold = thresholds['rows', m.measure, m.point]
            predicted = m.values[0] > threshold
            name = f'{m.measure}\n{m.point}, t = {threshold:g}'
            score = f'{100 * pseudo_masks.iou(predicted, truth, valid):.0f}'
            shown.append((name, _lit(pixels, predicted, m.grid), score))
        for ax, (name, picture, score) in zip(row, shown, strict=True):
            ax.imshow(picture, interpolation='nearest')
            without_ticks(ax)
            ax.set_xlabel(score, fontsize=7, labelpad=1)
            ax.set_title(name if ax in axes[0] else '', fontsize=7)
    figure.suptitle(title, fontsize=8)
    save_figure(figure, path, dpi=110)


def _lit(pixels: np.ndarray, tokens: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the picture, dark where ``tokens`` ``[N]`` is False."""
    height, width = pixels.shape[:2]
    rows, columns = (
        np.arange(n) * g // n for n, g in zip((height, width), grid, strict=True)
    )
    light = np.where(tokens.reshape(grid)[rows][:, columns], 1.0, 0.25)
    return (pixels * light[..., None]).astype(np.uint8)
