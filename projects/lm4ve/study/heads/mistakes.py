"""Which test pictures heads get wrong: by class, by pair of classes, and one by one.

Predictions are ``[seeds, pictures]`` of one head, where -1 stands for
scores that were not finite, and labels ``[pictures]`` are in the same order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm4ve.study.heads.study import StudyResults
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.table import Row


class Confusion(NamedTuple):
    """Pictures of a class that a head takes for another.

    Attributes:
        label, predicted (int): The two classes.
        pictures (float): How many, in the mean over seeds.
    """

    label: int
    predicted: int
    pictures: float


def class_recalls(
    labels: np.ndarray, predicted: np.ndarray, classes: int
) -> np.ndarray:
    """Return the share of each class's pictures that are right, in per cent.

    Args:
        labels (np.ndarray): int64 ``[pictures]``.
        predicted (np.ndarray): int64 ``[seeds, pictures]``.
        classes (int): The number of classes.

    Returns:
        np.ndarray: float64 ``[classes]``, means over seeds; NaN for a class without a
        picture.
    """
    shares = (predicted == labels).mean(0)
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels, weights=shares, minlength=classes)
    recalls = np.full(classes, np.nan)
    np.divide(100 * right, counts, out=recalls, where=counts > 0)
    return recalls


def list_confusions(labels: np.ndarray, predicted: np.ndarray) -> list[Confusion]:
    """Return all pairs of a class and the class it is taken for, the most frequent first.

    Args:
        labels (np.ndarray): int64 ``[pictures]``.
        predicted (np.ndarray): int64 ``[seeds, pictures]``.
    """
    seeds = len(predicted)
    label_of = np.broadcast_to(labels, predicted.shape)
    is_confusion = (predicted != label_of) & (predicted >= 0)
    pairs = np.stack([label_of[is_confusion], predicted[is_confusion]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    confusions = []
    for (label, other), count in zip(found.tolist(), counts.tolist(), strict=True):
        confusions.append(Confusion(label, other, count / seeds))
    # Sorting keeps the classes' order among equal numbers.
    confusions.sort(key=lambda confusion: -confusion.pictures)
    return confusions


def only_right_in(
    labels: np.ndarray, predicted: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Return the pictures that a head gets right in most seeds, and another head wrong in most.

    Args:
        labels (np.ndarray): int64 ``[pictures]``.
        predicted (np.ndarray): int64 ``[seeds, pictures]``, of the first head.
        other (np.ndarray): int64 ``[seeds, pictures]``, of the other one, perhaps with
            another number of seeds.

    Returns:
        np.ndarray: int64 indices, the largest gap between the shares of seeds first.
    """
    share = (predicted == labels).mean(0)
    share_of_other = (other == labels).mean(0)
    gap = share - share_of_other
    (chosen,) = np.nonzero((share > 0.5) & (share_of_other < 0.5))
    order = np.argsort(-gap[chosen], kind='stable')
    return chosen[order]


def most_frequent(predicted: np.ndarray) -> tuple[int, int]:
    """Return what most seeds predict for one picture, and how many of them.

    Args:
        predicted (np.ndarray): int64 ``[seeds]``.
    """
    values, counts = np.unique(predicted, return_counts=True)
    first = int(counts.argmax())
    return int(values[first]), int(counts[first])


def class_rows(
    data: ProbeData, results: StudyResults, names: Sequence[str]
) -> list[Row]:
    """Return a row for each class: its pictures by split, and the recall of some heads.

    The class with the lowest recall of the first head comes first.

    Args:
        data (ProbeData): Labels and splits.
        results (StudyResults): The results of all heads.
        names (Sequence[str]): The heads that have a column, at least one.
    """
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
    data: ProbeData, results: StudyResults, names: Sequence[str]
) -> list[Row]:
    """Return a row for each pair of classes that the first head confuses, frequent ones first.

    Args:
        data (ProbeData): Labels and splits.
        results (StudyResults): The results of all heads.
        names (Sequence[str]): The heads that have a column, at least one.
    """
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
