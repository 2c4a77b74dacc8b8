"""Which test pictures heads get wrong: by class, by pair of classes, and one by one.

Every function takes predictions ``[seeds, pictures]`` of one head, where -1 stands for
scores that were not finite, and labels ``[pictures]`` in the same order.
"""

from typing import NamedTuple

import numpy as np


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
