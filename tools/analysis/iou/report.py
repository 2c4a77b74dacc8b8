"""Pseudo-mask IoU as a table of means with intervals, kept as JSON and CSV.

Two ways to choose the threshold stand side by side. The paper takes the best one of
each image, which looks at the truth; the other is fixed on some images and tried on the
rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lm4ve.files import write_csv, write_json

from . import pseudo_masks
from .pseudo_masks import (
    AS_IS,
    INVERTED,
    PRIOR,
    SHUFFLED,
    Key,
    Scores,
)

#: Ways to choose the threshold.
BEST_PER_IMAGE = 'best per image'
FIXED = 'fixed'
CHOICES = (BEST_PER_IMAGE, FIXED)
#: Measure -> the pairs of points whose difference is reported: one before and one after
#: the block, in the encoder's channels and in the language model's.
PAIRS = {
    'magnitude': (('encoder', 'after'), ('mapped', 'block')),
    'frequency': (('encoder', 'after'), ('mapped', 'block')),
    'attention': (('encoder', 'block'),),
}


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
        fixing_images (int): The number of images on which the thresholds were fixed;
            rows with a fixed threshold are over the others.
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
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        method='percentile',
        rng=np.random.default_rng(seed),
        batch=max(2**23 // len(values), 1),  # at most 64 MB
    )
    interval = result.confidence_interval
    return mean, float(interval.low), float(interval.high)


def make_report(
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
    rows: list[dict[str, Any]] = []
    for key, table in scores.tables.items():
        if key == PRIOR:
            row = _new_row('rows', key, choice='', threshold=None, values=table[:, 0])
            rows.append(row)
            continue
        rows += _rows_of_map(key, table, scores.thresholds, fixing, rest)
        _, _, variant = key
        if variant == AS_IS:
            rows += _curve(key, table, scores.thresholds)
    rows += _differences(rows)
    frame = pd.DataFrame(rows)
    values_of_rows = frame.pop('values')
    frame['images'] = values_of_rows.map(len)
    frame[['iou', 'low', 'high']] = [
        bootstrap_mean(values, resamples, seed) for values in values_of_rows
    ]
    # A point's note is on its attention; the other measures of the point have none.
    notes = frame['point'].map(scores.notes).fillna('')
    frame['note'] = notes.where(frame['measure'] == 'attention', '')
    return Report(
        frame=frame,
        thresholds=list(scores.thresholds),
        images=len(scores.names),
        fixing_images=len(fixing),
        empty=scores.empty,
    )


def _rows_of_map(
    key: Key,
    table: np.ndarray,
    thresholds: Sequence[float],
    fixing: np.ndarray,
    rest: np.ndarray,
) -> list[dict[str, Any]]:
    """Return two rows of a map: with the best threshold of each image, and with a fixed one.

    Args:
        key (Key): Measure, point and variant.
        table (np.ndarray): IoU float64 ``[images, T]``.
        thresholds (Sequence[float]): The T thresholds.
        fixing, rest (np.ndarray): Indices of the images on which the threshold is
            fixed, and of those on which it is tried.
    """
    mean_of_best = float(np.take(thresholds, table.argmax(axis=1)).mean())
    best = _new_row('rows', key, BEST_PER_IMAGE, mean_of_best, table.max(axis=1))
    index = int(table[fixing].mean(axis=0).argmax())
    fixed = _new_row('rows', key, FIXED, thresholds[index], table[rest, index])
    return [best, fixed]


def _curve(
    key: Key, table: np.ndarray, thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """Return a row for each threshold, which is the same for all images, of one map.

    Args:
        key (Key): Measure, point and variant.
        table (np.ndarray): IoU float64 ``[images, T]``.
        thresholds (Sequence[float]): The T thresholds.
    """
    rows = []
    for threshold, values in zip(thresholds, table.T, strict=True):
        rows.append(_new_row('curves', key, 'the same for all', threshold, values))
    return rows


def _new_row(
    table: str, key: Key, choice: str, threshold: float | None, values: np.ndarray
) -> dict[str, Any]:
    """Return a row of :attr:`Report.frame`, with the IoU of each image as 'values'.

    Args:
        table (str): The row's table: 'rows', 'curves' or 'differences'.
        key (Key): Measure, point and variant.
        choice (str): How the threshold was chosen.
        threshold (float, optional): The threshold, or the mean of several; None in rows
            that have none.
        values (np.ndarray): The IoU of each image, float64 ``[images]``.
    """
    measure, point, variant = key
    return dict(
        table=table,
        measure=measure,
        point=point,
        variant=variant,
        threshold_choice=choice,
        threshold=threshold,
        values=values,
    )


def _differences(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the differences in IoU after minus before the block.

    There is one for each pair of points in :data:`PAIRS`, as is and inverted, and for
    each choice of the threshold. Pairs of which the model lacks a point are left out.
    Rows of one choice hold the same images in the same order, so that values are paired
    by image.

    Args:
        rows (Sequence[dict]): The rows of maps, from :func:`_new_row`.
    """
    values_of = {}
    for row in rows:
        key = (row['measure'], row['point'], row['variant'])
        values_of[key, row['threshold_choice']] = row['values']
    differences = []
    for measure, pairs in PAIRS.items():
        for before, after in pairs:
            for variant in (AS_IS, INVERTED):
                for choice in CHOICES:
                    values_before = values_of.get(((measure, before, variant), choice))
                    values_after = values_of.get(((measure, after, variant), choice))
                    if values_before is None or values_after is None:
                        continue
                    row = _new_row(
                        'differences',
                        key=(measure, f'{after} - {before}', variant),
                        choice=choice,
                        threshold=None,
                        values=values_after - values_before,
                    )
                    differences.append(row)
    return differences


def save_report(report: Report, path: Path, about: dict[str, Any]) -> None:
    """Write a report as JSON, and its rows as CSV beside it.

    Args:
        report (Report): The report.
        path (Path): The JSON file. It holds ``about``, thresholds and numbers of images,
            and under 'rows', 'curves' and 'differences' a list of rows each; NaN becomes
            null. The CSV file has the same name with ``.csv``.
        about (dict): What was run, in plain data.
    """
    # NaN is not JSON.
    plain = report.frame.astype(object).where(report.frame.notna(), None)
    content = dict(
        about,
        thresholds=report.thresholds,
        images=report.images,
        fixing_images=report.fixing_images,
        empty=report.empty,
    )
    for table, rows in plain.groupby('table', sort=False):
        content[table] = rows.drop(columns='table').to_dict('records')
    write_json(content, path)
    rows = report.frame.itertuples(index=False, name=None)
    write_csv(report.frame.columns, rows, path.with_suffix('.csv'))


def tables(report: Report, title: str) -> list[tuple[str, pd.DataFrame]]:
    """Return the tables of a report with their headings, as text for people.

    There is one for each choice of the threshold, and one of the differences; empty ones
    are left out.

    Args:
        report (Report): The report.
        title (str): What was scored; the first heading begins with it.
    """
    frame = report.frame.assign(cell=report.frame.apply(_cell, axis=1))
    rows = frame[frame['table'] == 'rows']
    differences = frame[frame['table'] == 'differences']
    by_choice = rows.groupby('threshold_choice')
    tried = report.images - report.fixing_images
    headings = [
        f'{title}: IoU in %, 95 % bootstrap interval over {report.images} images. Everything is '
        f'foreground: {_cell(report.prior)}.{_notes(frame)}\nBest threshold of each image '
        '(sees the truth)',
        f'Fixed threshold of {report.fixing_images} images, tried on the other {tried}',
        'Behind the block minus before it, paired by image',
    ]
    point = ['measure', 'point']
    pivots = [
        _pivot(by_choice.get_group(BEST_PER_IMAGE), point, 'variant'),
        _pivot(by_choice.get_group(FIXED), point, 'variant'),
        _pivot(differences, [*point, 'variant'], 'threshold_choice'),
    ]
    not_empty = []
    for heading, pivot in zip(headings, pivots, strict=True):
        if len(pivot) > 0:
            not_empty.append((heading, pivot))
    return not_empty


def _pivot(rows: pd.DataFrame, index: list[str], columns: str) -> pd.DataFrame:
    """Place the column 'cell' of rows in a table with row and column headings.

    Args:
        rows (pd.DataFrame): Rows with a 'cell' each, whose order is kept.
        index (list[str]): The columns of ``rows`` that give the row headings.
        columns (str): The column of ``rows`` that gives the column headings.
    """
    return rows.pivot_table(
        index=index, columns=columns, values='cell', aggfunc='first', sort=False
    )


def _notes(frame: pd.DataFrame) -> str:
    """Return whose attention it is at each point, as sentences."""
    noted = frame[frame['note'] != ''].drop_duplicates(['point', 'note'])
    sentences = ''
    for point, note in zip(noted['point'], noted['note'], strict=True):
        sentences += f' Attention, {point}: {note}.'
    return sentences


def _cell(row: pd.Series) -> str:
    """Return the text of a row: '52.1 [50.3, 54.0] at 0.4', in per cent.

    Differences have a sign, only fixed thresholds are written, and the shuffled maps have
    the mean alone.
    """
    is_difference = row['table'] == 'differences'
    sign = '+' if is_difference else ''
    mean = f'{100 * row["iou"]:{sign}.1f}'
    if row['variant'] == SHUFFLED:
        return mean
    if np.isnan(row['low']):
        cell = f'{mean} (one image)'
    else:
        low = f'{100 * row["low"]:{sign}.1f}'
        high = f'{100 * row["high"]:{sign}.1f}'
        cell = f'{mean} [{low}, {high}]'
    if row['threshold_choice'] == FIXED and not is_difference:
        cell += f' at {row["threshold"]:g}'
    return cell
