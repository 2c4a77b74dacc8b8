"""Let torch.compile follow the accuracy that mmaction2's heads log in training."""

from typing import Any

import numpy as np


def compare_by_method(head: Any) -> None:
    """Replace ``top_k_accuracy`` in a head's module by the same one without a ufunc's method.

    Broken in mmaction2 1.2.0 (not reported upstream): torch.compile cannot trace
    ``np.logical_or.reduce``, and splits the graph of each training step there.
    ``ndarray.any`` gives the same values. May go once mmaction2 uses it, or torch
    traces methods of ufuncs.

    Args:
        head (ModuleType): A module of mmaction2 that has imported the function.
    """
    head.top_k_accuracy = _top_k_accuracy


def _top_k_accuracy(
    scores: np.ndarray, labels: np.ndarray, topk: tuple[int, ...] = (1,)
) -> list[Any]:
    """Return the part of samples whose label is among the ``k`` largest scores, for each k.

    Args:
        scores (np.ndarray): ``[N, classes]``.
        labels (np.ndarray): Integers ``[N]``.
        topk (tuple[int]): The numbers of scores.
    """
    accuracies = []
    for k in topk:
        largest = np.argsort(scores, axis=1)[:, -k:]
        is_among = (largest == labels[:, np.newaxis]).any(axis=1)
        accuracies.append(is_among.sum() / len(is_among))
    return accuracies
