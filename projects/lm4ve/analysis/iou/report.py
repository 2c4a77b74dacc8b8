"""Pseudo-mask IoU as rows with intervals, shown as tables and a plot, kept as JSON and CSV.

Two ways to choose the threshold stand side by side. The paper takes the best one of each
image, which looks at the truth; the other is fixed on some images and tried on the rest.
"""

import csv
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from lm4ve.analysis.iou.pseudo_masks import PRIOR, VARIANTS, Key, Scores, split_images
from lm4ve.files import replacing, write_json
from lm4ve.tasks.base.pictures import save_figure

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
class Row:
    """A mean over images with its interval.

    Attributes:
        measure, point, variant (str): Name the map.
        threshold_choice (str): One of :data:`CHOICES`; '' for the prior, which has
            no threshold.
        threshold (float, optional): The fixed one; the mean of the best ones.
        images (int): The number of images in the mean.
        iou, low, high (float): Mean and 95 % interval of the IoU, or of its
            difference; the interval of one image is NaN.
        note (str): Whose attention it is.
    """

    measure: str
    point: str
    variant: str
    threshold_choice: str
    threshold: float | None
    images: int
    iou: float
    low: float
    high: float
    note: str = ''


@dataclass
class Report:
    """All rows of a model on a set of images.

    Attributes:
        rows (list[Row]): The prior, and every map, variant and choice.
        differences (list[Row]): After minus before the block, paired; ``point`` is
            'after - encoder', for example.
        curves (list[Row]): Each map as it is at every threshold, over all images.
        thresholds (tuple[float, ...]): The thresholds that were tried.
        images (int): The number of images that were scored.
        fixing_images (int): On so many of them the thresholds were fixed; rows with a
            fixed threshold are over the others.
        empty (list[str]): The images that were left out, as none of their tokens is
            foreground.
    """

    rows: list[Row]
    differences: list[Row]
    curves: list[Row]
    thresholds: tuple[float, ...]
    images: int
    fixing_images: int
    empty: list[str]


def bootstrap_mean(
    values: np.ndarray, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[np.ndarray, ...]:
    """Return mean and percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Every resample draws the same images in all columns, so that the interval of a column of
    differences is the paired one.

    Args:
        values (np.ndarray): ``[images]`` or ``[images, columns]``.
        resamples (int): How often to draw images with replacement.
        seed (int): Seeds the draws.
        confidence (float): 0.95 for 95 % intervals.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: float64 mean and the interval's
        ends, each ``[]`` or ``[columns]``. For a single image the ends are NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(axis=0)
    if len(values) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    # `batch` bounds the memory of the resampled copy to some 64 MB.
    batch = int(np.clip(2**23 // max(values.size, 1), 1, resamples))
    options = dict(axis=0, vectorized=True, method='percentile', confidence_level=confidence)
    options |= dict(n_resamples=resamples, batch=batch, rng=np.random.default_rng(seed))
    found = stats.bootstrap((values,), np.mean, **options).confidence_interval
    return mean, found.low, found.high


def summarize(
    scores: Scores, fixed_share: float = 0.2, resamples: int = 2000, seed: int = 0
) -> Report:
    """Choose thresholds, average over images, and bootstrap the means.

    Args:
        scores (Scores): The IoU of all images.
        fixed_share (float): Share of the images for fixing a threshold.
        resamples (int): The number of bootstrap resamples.
        seed (int): Seeds the split and the bootstrap.

    Returns:
        Report: Differences of two rows are resampled with the same images.

    Raises:
        UserError: There are too few images.
    """
    fixing, rest = split_images(len(scores.names), fixed_share, seed)
    # (map, choice) -> IoU of each image, and the threshold.
    chosen: dict[tuple[Key, str], tuple[np.ndarray, float | None]] = {}
    differences, curves = [], []
    for key, table in scores.tables.items():
        if key == PRIOR:
            chosen[key, ''] = table[:, 0], None
            continue
        best = np.take(scores.thresholds, table.argmax(axis=1))
        chosen[key, CHOICES[0]] = table.max(axis=1), float(np.mean(best))
        fixed = int(table[fixing].mean(axis=0).argmax())
        chosen[key, CHOICES[1]] = table[rest, fixed], scores.thresholds[fixed]
        if key[2] == VARIANTS[0]:
            columns = zip(table.T, scores.thresholds, strict=True)
            curves += [(key, 'the same for all', values, t) for values, t in columns]
    for measure, pairs in PAIRS.items():
        for (before, after), variant, choice in itertools.product(pairs, VARIANTS[:2], CHOICES):
            a, b = (chosen.get(((measure, p, variant), choice)) for p in (after, before))
            if a is not None and b is not None:
                key = measure, f'{after} - {before}', variant
                differences.append((key, choice, a[0] - b[0], None))

    def averaged(entries) -> list[Row]:
        """Return a row for each entry (key, choice, per-image values, threshold)."""
        rows = []
        for length in dict.fromkeys(len(e[2]) for e in entries):
            some = [e for e in entries if len(e[2]) == length]
            columns = np.stack([e[2] for e in some], axis=1)
            intervals = zip(*bootstrap_mean(columns, resamples, seed), strict=True)
            for (key, choice, _, threshold), numbers in zip(some, intervals, strict=True):
                note = scores.notes.get(key[1], '') if key[0] == 'attention' else ''
                rows.append(Row(*key, choice, threshold, length, *map(float, numbers), note))
        return rows

    entries = [(k, c, v, t) for (k, c), (v, t) in chosen.items()]
    return Report(
        *map(averaged, (entries, differences, curves)),
        scores.thresholds,
        len(scores.names),
        len(fixing),
        scores.empty,
    )


def write(report: Report, folder: str | Path, about: dict) -> list[Path]:
    """Write ``iou.json`` (everything), ``iou.csv`` (every row) and ``iou.png``.

    Args:
        report (Report): What to write.
        folder (str | Path): Where the files go; it is made if it is not there.
        about (dict): Says in the JSON what was run.

    Returns:
        list[Path]: The files.
    """
    folder = Path(folder)
    paths = [folder / f'iou.{end}' for end in ('json', 'csv', 'png')]
    # NaN, of a single image's interval, is not JSON.
    plain = json.loads(json.dumps(asdict(report)), parse_constant=lambda _: None)
    write_json(dict(about, **plain), paths[0])
    with replacing(paths[1]) as beside, open(beside, 'w', newline='') as f:
        out = csv.DictWriter(f, ['table', *Row.__dataclass_fields__])
        out.writeheader()
        for table in ('rows', 'differences', 'curves'):
            out.writerows(dict(asdict(row), table=table) for row in getattr(report, table))
    plot(report, paths[2], about.get('title', ''))
    return paths


def plot(report: Report, path: str | Path, title: str = '') -> None:
    """Draw IoU over the threshold, a panel for each measure, with the 95 % band.

    Args:
        report (Report): What to draw.
        path (str | Path): The file to write.
        title (str): Stands above the plot.
    """
    measures = list(dict.fromkeys(row.measure for row in report.curves))
    figure = Figure(figsize=(4 * len(measures), 3.6), layout='constrained')
    axes = np.atleast_1d(figure.subplots(1, len(measures), sharey=True))
    prior = next(row for row in report.rows if row.measure == PRIOR[0])
    points = list(dict.fromkeys(row.point for row in report.curves))
    for ax, measure in zip(axes, measures, strict=True):
        for i, point in enumerate(points):
            rows = [r for r in report.curves if (r.measure, r.point) == (measure, point)]
            if not rows:
                continue
            x, y, low, high = np.array([(r.threshold, r.iou, r.low, r.high) for r in rows]).T
            ax.plot(x, y, 'o-', ms=3, color=f'C{i}', label=point)
            ax.fill_between(x, low, high, color=f'C{i}', alpha=0.2, lw=0)
        ax.axhline(prior.iou, color='.5', ls='--', lw=1, label=prior.measure)
        ax.set(title=measure, xlabel='threshold')
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    axes[0].set_ylabel('IoU, mean over images')
    axes[0].set_ylim(bottom=0)  # last: the panels share it
    figure.suptitle(title, fontsize=9)
    save_figure(figure, path, dpi=110)


def tables(report: Report, title: str) -> list[tuple[str, pd.DataFrame]]:
    """Return heading and table for each choice of the threshold, and of the differences.

    Args:
        report (Report): The results.
        title (str): Opens the first heading.
    """
    prior = next(row for row in report.rows if row.measure == PRIOR[0])
    notes = ''.join(sorted({f' Attention, {r.point}: {r.note}.' for r in report.rows if r.note}))
    tried = report.images - report.fixing_images
    headings = (
        f'{title}: IoU in %, 95 % bootstrap interval over {report.images} images. Everything is '
        f'foreground: {_cell(prior)}.{notes}\nBest threshold of each image (sees the truth)',
        f'Fixed threshold of {report.fixing_images} images, tried on the other {tried}',
    )
    found = []
    for choice, heading in zip(CHOICES, headings, strict=True):
        rows = [r for r in report.rows if r.threshold_choice == choice]
        found.append((heading, _pivot(rows, ['measure', 'point'], 'variant')))
    if report.differences:
        heading = 'Behind the block minus before it, paired by image'
        index = ['measure', 'point', 'variant']
        found.append((heading, _pivot(report.differences, index, 'threshold_choice')))
    return found


def _pivot(rows: Sequence[Row], index: list[str], columns: str) -> pd.DataFrame:
    frame = pd.DataFrame([{**vars(row), 'cell': _cell(row)} for row in rows])
    return frame.pivot_table('cell', index, columns, aggfunc='first', sort=False)


def _cell(row: Row) -> str:
    sign = '+' if ' - ' in row.point else ''
    mean, low, high = (f'{100 * v:{sign}.1f}' for v in (row.iou, row.low, row.high))
    if row.variant == VARIANTS[2]:
        return mean
    interval = '(one image)' if np.isnan(row.low) else f'[{low}, {high}]'
    threshold = f' at {row.threshold:g}' if row.threshold_choice == CHOICES[1] and not sign else ''
    return f'{mean} {interval}{threshold}'
