"""What the scores of a grid's trainings are: their unit, and what they are over."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from lm4ve.errors import check
from lm4ve.runner.scored_data import SampleCounts
from lm4ve.study.store import Result


class Unit(NamedTuple):
    """The unit of a metric.

    Attributes:
        name (str): As tables call it; '' for an unknown one.
        factor (int): What a test reports is multiplied with; mmaction2 reports shares.
        counts_samples (bool): The score is the share of samples that are right, by some
            measure.
    """

    name: str = ''
    factor: int = 1
    counts_samples: bool = False


#: What a metric begins with -> its unit.
_UNITS = {
    'acc/': Unit('%', 100, counts_samples=True),
    'accuracy/': Unit('%', counts_samples=True),
    'sqa3d/': Unit('%', counts_samples=True),
    'vqa/': Unit('%'),
    'retrieval/': Unit('%'),
    'motion/min': Unit('m'),
}


#: The share of samples whose one label is right, which their labels tell again.
_OF_LABELS = ('acc/top1', 'accuracy/top1', 'accuracy/overall')


def is_of_labels(metric: str) -> bool:
    """Return whether a metric is the share of samples whose label is right."""
    return metric in _OF_LABELS


def unit_of(metric: str) -> Unit:
    """Return the unit of a metric."""
    for beginning, unit in _UNITS.items():
        if metric.startswith(beginning):
            return unit
    return Unit()


def common_labels(results: Iterable[Result]) -> np.ndarray | None:
    """Return the true labels of the samples that results are over, int64 ``[samples]``.

    Returns:
        np.ndarray | None: None if a result has none, or those of other samples.
    """
    labels: np.ndarray | None = None
    for result in results:
        if result.labels is None or result.predicted is None:
            return None
        if labels is not None and not np.array_equal(labels, result.labels):
            return None
        labels = result.labels
    return labels


def score_of(metric: str, metrics: Mapping[str, float]) -> float:
    """Return one of the metrics that a test has reported, in its unit.

    Raises:
        UserError: The test did not report it.
    """
    check('metric', metric, choices=sorted(metrics))
    return unit_of(metric).factor * metrics[metric]


def counts_of(result: Result) -> SampleCounts:
    """Return how many samples the metrics of a result are over, and of how many."""
    return SampleCounts(result.scored, result.total)
