"""Classifiers without a training loop, from scikit-learn: baselines that reviewers know.

They read the same standardized tokens as the heads that train, averaged to a vector.
"""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

#: Temperature of the neighbours' votes (arXiv 1805.01978, which DINO and DINOv2 follow).
TEMPERATURE = 0.07
_MOST_ITERATIONS = 1000


def fit_baseline(family: str, tuned: float, x: np.ndarray, labels: np.ndarray) -> Any:
    """Fit a classifier of scikit-learn.

    Args:
        family (str): 'logreg' or 'knn'.
        tuned (float): C of the logistic regression, its inverse weight decay; or k, how
            many neighbours vote.
        x (np.ndarray): float32 ``[n, C]``.
        labels (np.ndarray): int64 ``[n]``.
    """
    if family == 'knn':
        neighbours = min(int(tuned), len(x))
        model = KNeighborsClassifier(neighbours, metric='cosine', weights=_votes)
    else:
        model = LogisticRegression(C=tuned, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        # A large C needs more iterations; val prefers another one if that matters.
        warnings.simplefilter('ignore', ConvergenceWarning)
        return model.fit(x, labels)


def _votes(distances: np.ndarray) -> np.ndarray:
    """Return the weights of neighbours by their cosine distance, ``1 - similarity``."""
    return np.exp(-distances / TEMPERATURE)
