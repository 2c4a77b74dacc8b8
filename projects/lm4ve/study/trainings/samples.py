"""Which label each sample of a test was given: what a metric sums up, one by one.

An interval over test samples needs them. The test of a training has this metric beside
its own, which reports nothing and keeps the labels for the training's result.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator

from lm4ve.errors import require
from lm4ve.registry import METRICS

#: How data samples call their scores: mmpretrain and mmaction2, and point clouds.
_SCORES = ('pred_score', 'pred_scores')
#: Accuracies are reported in float32.
_ROUNDING = 1e-4


@METRICS.register_module()
class SampleLabels(BaseMetric):
    """Keep the label that each sample was given, and its true one; report nothing.

    Args:
        **kwargs: Passed to MMEngine's ``BaseMetric``.

    Attributes:
        labels (torch.Tensor, optional): After the test, in the main process: the given
            and the true labels, int64 ``[samples, 2]``, in the order of the data; -1 is
            given by scores that are not finite. None if a sample has not one label.
    """

    labels: torch.Tensor | None = None

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Keep both labels of each sample."""
        for sample in data_samples:
            self.results.append(_labels_of(sample))

    def compute_metrics(self, results: list) -> dict:
        """Keep the labels of all processes."""
        if None not in results:
            self.labels = torch.tensor(results)
        return {}


def _labels_of(sample: Any) -> tuple[int, int] | None:
    """Return the given and the true label of a data sample, or None if it has not one each."""
    if not isinstance(sample, Mapping):
        return None
    label = sample.get('gt_label')
    if not isinstance(label, torch.Tensor) or label.numel() != 1:
        return None
    given = sample.get('pred_label')
    for name in _SCORES:
        scores = sample.get(name)
        if isinstance(scores, torch.Tensor) and scores.ndim == 1:
            given = scores.argmax() if scores.isfinite().all() else torch.tensor(-1)
    if not isinstance(given, torch.Tensor) or given.numel() != 1:
        return None
    return int(given), int(label)


def keep_labels(cfg: Config) -> None:
    """Let the test of a config keep labels.

    Args:
        cfg (Config): Changed in place.
    """
    metric = dict(type='lm4ve.SampleLabels')
    evaluator = cfg.get('test_evaluator')
    if isinstance(evaluator, Mapping) and 'metrics' not in evaluator:
        evaluator = [evaluator]
    if isinstance(evaluator, (list, tuple)):
        cfg.test_evaluator = [*evaluator, metric]


def kept_labels(evaluator: Evaluator) -> torch.Tensor | None:
    """Return the labels that the test has kept, int64 ``[samples, 2]``; None without any."""
    for metric in evaluator.metrics:
        if isinstance(metric, SampleLabels):
            return metric.labels
    return None


def require_equal(labels: torch.Tensor, metric: str, accuracy: float) -> None:
    """Refuse labels that do not give the accuracy that a test has reported.

    Args:
        labels (torch.Tensor): Given and true, int64 ``[samples, 2]``.
        metric (str): The metric's name.
        accuracy (float): What it says, in per cent.

    Raises:
        UserError: They differ.
    """
    given, true = labels.T
    if (given < 0).any():  # which of them a metric takes for right is chance
        return
    own = 100 * float((given == true).double().mean())
    require(
        abs(own - accuracy) < _ROUNDING,
        f'{metric} is {accuracy:.4f} %, and the labels of the samples give {own:.4f} %.',
    )
