"""Pseudo-mask IoU as rows with intervals, shown as tables and a plot, kept as JSON and CSV.

Two ways to choose the threshold stand side by side. The paper takes the best one of each
image, which looks at the truth; the other is fixed on some images and tried on the rest.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from lm4ve.analysis.iou.bootstrap import bootstrap_mean
from lm4ve.analysis.iou.pseudo_masks import PRIOR, VARIANTS, Key, Scores, split_images
from lm4ve.files import replacing, write_json
from lm4ve.tasks.base.figures import save_figure

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
    tables = scores.tables
    fixing, rest = split_images(len(scores.names), fixed_share, seed)
    every = np.arange(len(scores.names))
    chosen: dict[tuple[Key, str], tuple[np.ndarray, float | None]] = {}
    for key, table in tables.items():
        if key == PRIOR:
            chosen[key, ''] = table[:, 0], None
            continue
        best = table.argmax(axis=1)
        chosen[key, CHOICES[0]] = (
            table.max(axis=1),
            float(np.mean(np.take(scores.thresholds, best))),
        )
        fixed = int(table[fixing].mean(axis=0).argmax())
        chosen[key, CHOICES[1]] = table[rest, fixed], scores.thresholds[fixed]

    def averaged(entries) -> list[Row]:
        """Return a row for each entry (key, choice, per-image values, threshold)."""
        rows = []
        for length in dict.fromkeys(len(e[2]) for e in entries):
            some = [e for e in entries if len(e[2]) == length]
            columns = np.stack([e[2] for e in some], axis=1)
            for (key, choice, _, threshold), *numbers in zip(
                some, *bootstrap_mean(columns, resamples, seed), strict=True
            ):
                note = scores.notes.get(key[1], '') if key[0] == 'attention' else ''
                rows.append(Row(*key, choice, threshold, length, *map(float, numbers), note))
        return rows

    differences = []
    for measure, pairs in PAIRS.items():
        for before, after in pairs:
            for variant in VARIANTS[:2]:
                for choice in CHOICES:
                    a, b = (chosen.get(((measure, p, variant), choice)) for p in (after, before))
                    if a is not None and b is not None:
                        key = measure, f'{after} - {before}', variant
                        differences.append((key, choice, a[0] - b[0], None))
    curves = [
        (key, 'the same for all', table[:, i], t)
        for key, table in tables.items()
        if key[2] == VARIANTS[0]
        for i, t in enumerate(scores.thresholds)
    ]
    return Report(
        averaged([(k, c, v, t) for (k, c), (v, t) in chosen.items()]),
        averaged(differences),
        averaged(curves),
        scores.thresholds,
        len(every),
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


def tables(report: Report, title: str) -> list[Table]:
    """Make one table for each choice of the threshold, and one of the differences.

    Args:
        report (Report): What to show.
        title (str): The title of the first table.

    Returns:
        list[Table]: Three tables; two where no point is behind a block.
    """
    prior = next(row for row in report.rows if row.measure == PRIOR[0])
    notes = sorted({f'{r.point}: {r.note}' for r in report.rows if r.note})
    tried = report.images - report.fixing_images
    captions = (
        f'IoU in %, 95 % bootstrap interval over {report.images} images. Everything '
        f'is foreground: {_number(prior)}.' + (f' Attention, {", ".join(notes)}.' if notes else ''),
        f'The threshold t of {report.fixing_images} images, tried on the other {tried}.',
    )
    titles = (f'{title}\nBest threshold of each image (sees the truth)', 'Fixed threshold')
    found = []
    for choice, heading, caption in zip(CHOICES, titles, captions, strict=True):
        by: dict[tuple, dict] = {}
        for r in report.rows:
            if r.threshold_choice == choice:
                threshold = (f'{r.threshold:g}',) if choice == CHOICES[1] else ()
                cells = (_number(r), *threshold)
                if r.variant == VARIANTS[2]:
                    cells = (f'{100 * r.iou:.1f}',)
                by.setdefault((r.measure, r.point), {})[r.variant] = cells
        columns = ('as is', 't', 'inverted', 't') if choice == CHOICES[1] else VARIANTS[:2]
        found.append(_table(heading, ('measure', 'point'), (*columns, VARIANTS[2]), by, caption))
    if report.differences:
        by = {}
        for r in report.differences:
            cells = (_number(r, '+'),)
            by.setdefault((r.measure, r.point, r.variant), {})[r.threshold_choice] = cells
        heading = 'Behind the block minus before it, paired by image'
        found.append(_table(heading, ('measure', 'points', 'map'), CHOICES, by))
    return found


def _table(
    title: str, left: tuple, right: tuple, by: dict[tuple, dict], caption: str | None = None
) -> Table:
    """Make a table with a line for each key, whose groups of cells follow it."""
    table = Table(title=title, caption=caption, box=None, pad_edge=False)
    for name in (*left, *right):
        table.add_column(name, justify='right' if name in right else 'left', no_wrap=True)
    for key, groups in by.items():
        table.add_row(*key, *(cell for cells in groups.values() for cell in cells))
    return table


def _number(row: Row, sign: str = '') -> str:
    mean, low, high = (f'{100 * v:{sign}.1f}' for v in (row.iou, row.low, row.high))
    return f'{mean} (one image)' if np.isnan(row.low) else f'{mean} \\[{low}, {high}]'
