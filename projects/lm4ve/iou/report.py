"""Pseudo-mask IoU as rows with intervals: for the screen, as JSON and CSV, as a plot.

Two ways to choose the threshold stand side by side: the best of each image, the
paper's, which looks at the truth, and one fixed on some images and tried on the rest.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lm4ve.engine.files import replacing, write_json
from lm4ve.iou.bootstrap import bootstrap_mean
from lm4ve.iou.pseudo_masks import PRIOR, VARIANTS, Key, Scores, split_images

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
        measure, point, variant (str): Which map.
        threshold_choice (str): One of :data:`CHOICES`; '' for the prior, which has
            no threshold.
        threshold (float, optional): The fixed one; the mean of the best ones.
        images (int): Over which the mean is.
        iou, low, high (float): Mean and 95 % interval; of differences, the
            difference's.
        note (str): Whose attention.
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
        thresholds (tuple[float, ...]): Those tried.
        images (int): Scored.
        fixing_images (int): Of them, those on which thresholds were fixed; rows
            with a fixed threshold are over the others.
        empty (list[str]): Images left out: no token of theirs is foreground.
    """

    rows: list[Row]
    differences: list[Row]
    curves: list[Row]
    thresholds: tuple[float, ...]
    images: int
    fixing_images: int
    empty: list[str]


def summarise(
    scores: Scores, fixed_share: float = 0.2, resamples: int = 2000, seed: int = 0
) -> Report:
    """Choose thresholds, average over images, bootstrap.

    Args:
        scores (Scores): Of all images.
        fixed_share (float): Share of the images for fixing a threshold.
        resamples (int): Of the bootstrap.
        seed (int): Of the split and of the bootstrap.

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
        """Rows of (key, choice, per-image values, threshold), of one length each."""
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
        folder (str | Path): Where to; made if it is not there.
        about (dict): What was run, for the JSON.

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
    """Draw IoU over the threshold, one panel a measure, with the 95 % band.

    Args:
        report (Report): What to draw.
        path (str | Path): The picture.
        title (str): Above it.
    """
    from matplotlib.figure import Figure

    from lm4ve.engine.figures import save_figure

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


def tables(report: Report, title: str) -> list:
    """Make rich tables: the maps by each choice of threshold, and the differences.

    Args:
        report (Report): What to show.
        title (str): Of the first one.

    Returns:
        list[rich.table.Table]: Three; without a block, two.
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
    found = [
        _table(report, choice, *words)
        for choice, *words in zip(CHOICES, titles, captions, strict=True)
    ]
    if report.differences:
        found.append(_differences(report))
    return found


def _table(report: Report, choice: str, title: str, caption: str):
    from rich.table import Table

    fixed = choice == CHOICES[1]
    table = Table(title=title, caption=caption, box=None, pad_edge=False)
    for name in ('measure', 'point'):
        table.add_column(name, no_wrap=True)
    for name in ('as is', *('t',) * fixed, 'inverted', *('t',) * fixed, 'shuffled'):
        table.add_column(name, justify='right', no_wrap=True)
    by: dict[tuple, dict] = {}
    for r in report.rows:
        if r.threshold_choice == choice:
            by.setdefault((r.measure, r.point), {})[r.variant] = r
    for key, row in by.items():
        cells = []
        for variant in VARIANTS[:2]:
            cells.append(_number(row[variant]))
            if fixed:
                cells.append(f'{row[variant].threshold:g}')
        table.add_row(*key, *cells, f'{100 * row[VARIANTS[2]].iou:.1f}')
    return table


def _differences(report: Report):
    from rich.table import Table

    table = Table(
        title='Behind the block minus before it, paired by image', box=None, pad_edge=False
    )
    for name in ('measure', 'points', 'map', *CHOICES):
        table.add_column(name, justify='right' if name in CHOICES else 'left', no_wrap=True)
    rows: dict[tuple, dict] = {}
    for r in report.differences:
        rows.setdefault((r.measure, r.point, r.variant), {})[r.threshold_choice] = r
    for key, found in rows.items():
        table.add_row(*key, *(_number(found[c], '+') for c in CHOICES))
    return table


def _number(row: Row, sign: str = '') -> str:
    mean, low, high = (f'{100 * v:{sign}.1f}' for v in (row.iou, row.low, row.high))
    return f'{mean} \\[{low}, {high}]'
