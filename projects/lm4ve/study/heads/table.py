"""The rows of a report's tables: results of heads, what they cost, classes and confusions."""

from collections.abc import Sequence

import numpy as np

from lm4ve.study.cells import format_number, format_p_value, points_of_margin
from lm4ve.study.compare import Comparison
from lm4ve.study.heads.ladder import WORDS
from lm4ve.study.heads.mistakes import class_recalls, list_confusions
from lm4ve.study.heads.stored import StoredStudy
from lm4ve.study.heads.study import StudyResults
from lm4ve.study.statistics import confidence_interval

#: Cells by column; all rows of a table have the same columns.
Row = dict[str, str]


def result_rows(
    names: Sequence[str],
    results: StudyResults,
    comparisons: Sequence[Comparison],
    margin: float,
) -> list[Row]:
    """Return a row for each head: accuracy, recall, and the block's difference from it.

    Args:
        names (Sequence[str]): The heads, in the order of the rows.
        results (StudyResults): The results of all heads.
        comparisons (Sequence[Comparison]): The comparisons of one block with other
            heads. A head that it was not compared with has empty cells.
        margin (float): The smallest difference that matters, in points.
    """
    comparison_with = {comparison.against: comparison for comparison in comparisons}
    block = comparisons[0].variant
    rows = []
    for name in names:
        accuracies = results.accuracies[name]
        row = {
            'variant': name,
            'accuracy': _format_mean(float(accuracies.mean()), half_width(accuracies)),
            'recall': f'{results.recalls[name].mean():.1f}',
            'difference': '',
            'interval': '',
            "Holm's p": '',
            f"'{block}' is": '',
        }
        if name == block:
            row[f"'{block}' is"] = '(this one)'
        comparison = comparison_with.get(name)
        if comparison is not None:
            row.update(_comparison_cells(comparison, margin))
        rows.append(row)
    return rows


def narrow_rows(rows: Sequence[Row]) -> list[Row]:
    """Return rows of :func:`result_rows` with the columns that a narrow terminal has room for."""
    left_out = ('recall', "Holm's p")
    narrow = []
    for row in rows:
        narrow.append({name: row[name] for name in row if name not in left_out})
    return narrow


def cost_rows(study: StoredStudy, results: StudyResults) -> list[Row]:
    """Return a row for each head: its size, its cost and how it was trained."""
    rows = []
    for name, head in study.heads.items():
        word = WORDS.get(head.family, 'rate')
        tuned = f'{word} {results.describe_values(name)}'
        if results.is_edge(name):
            tuned += ' (edge)'
        rows.append(
            {
                'variant': name,
                'trainable': f'{head.trainable:,}',
                'MFLOP': format_number(head.operations / 1e6),
                'tuned': tuned,
                'seeds': str(len(results.accuracies[name])),
                'seconds': format_number(results.seconds[name]),
            }
        )
    return rows


def half_width(accuracies: np.ndarray) -> float:
    """Return half of the 95 % interval of a mean over seeds; NaN for a single seed."""
    low, high = confidence_interval(accuracies)
    return (high - low) / 2


def _comparison_cells(comparison: Comparison, margin: float) -> Row:
    """Return the cells of a row that compare the block with the row's head."""
    return {
        'difference': format_points(comparison.difference),
        'interval': format_ends(comparison.low, comparison.high),
        "Holm's p": format_p_value(comparison.corrected_p),
        f"'{comparison.variant}' is": brief_verdict(comparison, margin),
    }


def format_points(value: float) -> str:
    """Return a difference in points with its sign; '-' for NaN."""
    return '-' if np.isnan(value) else f'{value:+.1f}'


def format_ends(low: float, high: float) -> str:
    """Return the ends of an interval in points; '-' for one that cannot be estimated."""
    return '-' if np.isnan(low) else f'{low:+.1f} to {high:+.1f}'


def _format_mean(mean: float, half: float) -> str:
    """Return a mean and half of its interval: '95.3 ± 0.4'; the mean alone if it has none.

    Args:
        mean (float): The mean.
        half (float): Half of its interval, or NaN.
    """
    if np.isnan(half):
        return f'{mean:.1f}'
    return f'{mean:.1f} ± {half:.1f}'


def brief_verdict(comparison: Comparison, margin: float) -> str:
    """Return a verdict in a few words: 'better', 'within 1 point', 'open: few groups'."""
    if comparison.verdict == 'equal':
        return f'within {points_of_margin(margin)}'
    if comparison.verdict != 'open':
        return comparison.verdict
    needed = []
    if comparison.needed_seeds:
        needed.append(f'{comparison.needed_seeds:,} seeds')
    if comparison.needed_pictures:
        needed.append(f'{comparison.needed_pictures:,} pictures')
    if needed:
        return f'open: needs {", ".join(needed)}'
    return f'open: {comparison.reason}'


def class_rows(
    study: StoredStudy, results: StudyResults, names: Sequence[str]
) -> list[Row]:
    """Return a row for each class: its pictures by split, and the recall of some heads.

    The class with the lowest recall of the first head comes first.

    Args:
        study (StoredStudy): The study.
        results (StudyResults): The results of all heads.
        names (Sequence[str]): The heads that have a column, at least one.
    """
    data = study.features.data
    classes = len(data.classes)
    counts = {}
    for split, indices in data.splits.items():
        counts[split] = np.bincount(data.labels[indices], minlength=classes)
    labels = data.labels[data.splits['test']]
    recalls = {}
    for name in names:
        recalls[name] = class_recalls(labels, results.predicted[name], classes)

    rows = []
    # Classes without a test picture, whose recall is NaN, come last.
    for label in np.argsort(recalls[names[0]], kind='stable').tolist():
        row = {'class': data.classes[label]}
        for split, count in counts.items():
            row[split] = str(count[label])
        for name in names:
            recall = recalls[name][label]
            row[f"recall of '{name}'"] = '-' if np.isnan(recall) else f'{recall:.1f}'
        rows.append(row)
    return rows


def confusion_rows(
    study: StoredStudy, results: StudyResults, names: Sequence[str]
) -> list[Row]:
    """Return a row for each pair of classes that the first head confuses, frequent ones first.

    Args:
        study (StoredStudy): The study.
        results (StudyResults): The results of all heads.
        names (Sequence[str]): The heads that have a column, at least one.
    """
    data = study.features.data
    labels = data.labels[data.splits['test']]
    counts = np.bincount(labels, minlength=len(data.classes))
    pictures_of = {}
    for name in names:
        pictures = {}
        for confusion in list_confusions(labels, results.predicted[name]):
            pictures[confusion.label, confusion.predicted] = confusion.pictures
        pictures_of[name] = pictures

    rows = []
    for label, predicted in pictures_of[names[0]]:
        row = {
            'class': data.classes[label],
            'taken for': data.classes[predicted],
            'of': str(counts[label]),
        }
        for name in names:
            mean = pictures_of[name].get((label, predicted), 0.0)
            row[f"by '{name}'"] = f'{mean:.1f}'
        rows.append(row)
    return rows
