"""Accuracies of the ImageNet variants, on top of mmpretrain's ``Accuracy``."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import torch
from mmpretrain.evaluation import Accuracy

from lm4ve.errors import UserError, listing
from lm4ve.registry import METRICS
from lm4ve.tasks.image.datasets.imagenet_variants import (
    ALEXNET_ERRORS,
    CORRUPTIONS,
    SEVERITIES,
)


@METRICS.register_module()
class SubsetAccuracy(Accuracy):
    """Accuracy of a 1,000-class model among some of its classes.

    This is the standard protocol of ImageNet-A and -R: the scores of the other classes
    are left out before the best is taken, so that none of them can be the answer.

    Args:
        topk (int or sequence of int): Default: 1.
        indices (sequence of int, optional): The classes, among the model's.
            Default: ``subset`` of the data set's metainfo.
        collect_device, prefix: Passed to MMEngine's ``BaseMetric``.

    Raises:
        UserError: There is no subset, or a label is not of it.

    Results: ``accuracy/top{k}`` in percent.
    """

    def __init__(
        self,
        topk: int | Sequence[int] = (1,),
        indices: Sequence[int] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        # Ranks count, not probabilities: those of a subset may all be tiny.
        super().__init__(
            topk=topk, thrs=None, collect_device=collect_device, prefix=prefix
        )
        self.indices = indices

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the subset's scores ``[S]`` and the label's place in it."""
        subset = self.indices
        if subset is None:
            subset = (self.dataset_meta or {}).get('subset')
        if subset is None:
            raise UserError(
                'SubsetAccuracy: set test_evaluator.indices, or use ImageNetVariant.'
            )
        indices = torch.as_tensor(subset)
        for sample in data_samples:
            place = (indices == sample['gt_label'].cpu()).nonzero().flatten()
            if place.numel() != 1:
                raise UserError(
                    f'The label {sample["gt_label"].tolist()} is not of the subset of '
                    f'{len(indices)} classes (test_evaluator.indices).'
                )
            scores = sample['pred_score'].cpu()[indices]
            self.results.append(dict(pred_score=scores, gt_label=place))


@METRICS.register_module()
class CorruptionAccuracy(Accuracy):
    """Top-1 accuracy of ImageNet-C: every corruption and severity weighs the same.

    Args:
        collect_device, prefix: Passed to MMEngine's ``BaseMetric``.

    Samples need ``corruption`` and ``severity``
    (:class:`lm4ve.tasks.image.ImageNetC`, and ``meta_keys`` of ``PackInputs``).

    Results, in percent: ``accuracy/top1``, the mean over all (corruption,
    severity) pairs; ``accuracy/<corruption>``, the mean over its severities; and
    ``accuracy/mCE``, the mean over corruptions of the error over AlexNet's, if
    all 15 with their 5 severities were tested.

    Raises:
        UserError: A group that the data set names has no sample.
    """

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(topk=1, collect_device=collect_device, prefix=prefix)

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep four small values a sample: the set has 3.75 million."""
        for sample in data_samples:
            scores = sample.get('pred_score')
            if scores is None:
                prediction = sample['pred_label']
            else:
                prediction = scores.argmax()
            result = (
                sample['corruption'],
                int(sample['severity']),
                int(prediction),
                int(sample['gt_label']),
            )
            self.results.append(result)

    def compute_metrics(self, results: list[tuple]) -> dict:
        """Average the accuracies of all groups, and per corruption; add mCE where it is defined.

        Args:
            results (list[tuple]): Corruption, severity, prediction and label of each
                sample.
        """
        accuracies = self._accuracies(results)
        self._check_complete(accuracies)
        by_corruption: dict[str, dict[int, float]] = defaultdict(dict)
        for (corruption, severity), accuracy in accuracies.items():
            by_corruption[corruption][severity] = accuracy
        metrics = dict(top1=_mean([*accuracies.values()]))
        for corruption, by_severity in by_corruption.items():
            metrics[corruption] = _mean([*by_severity.values()])
        if _is_whole_benchmark(by_corruption):
            relative_errors = []
            for corruption, alexnet_error in ALEXNET_ERRORS.items():
                error = 100 - metrics[corruption]
                relative_errors.append(100 * error / alexnet_error)
            metrics['mCE'] = _mean(relative_errors)
        return metrics

    def _accuracies(self, results: list[tuple]) -> dict[tuple[str, int], float]:
        """Return the top-1 accuracy of each corruption and severity, in percent."""
        predictions = defaultdict(list)
        labels = defaultdict(list)
        for corruption, severity, prediction, label in results:
            predictions[corruption, severity].append(prediction)
            labels[corruption, severity].append(label)
        accuracies = {}
        for group in predictions:
            accuracy = self.calculate(
                torch.tensor(predictions[group]), torch.tensor(labels[group])
            )
            accuracies[group] = accuracy.item()
        return accuracies

    def _check_complete(self, tested: Collection[tuple[str, int]]) -> None:
        """Refuse results without a group that the data set names."""
        meta = self.dataset_meta or {}
        missing = []
        for corruption in meta.get('corruptions', ()):
            for severity in meta.get('severities', ()):
                if (corruption, severity) not in tested:
                    missing.append(f'{corruption}/{severity}')
        if missing:
            raise UserError(
                f'CorruptionAccuracy: no sample of {listing(missing)} was tested.'
            )


def _is_whole_benchmark(by_corruption: Mapping[str, Mapping[int, float]]) -> bool:
    """Return whether all corruptions were tested with all severities."""
    for corruption in CORRUPTIONS:
        tested = by_corruption.get(corruption, {})
        if not set(SEVERITIES) <= set(tested):
            return False
    return True


def _mean(values: Sequence[float]) -> float:
    """Return the mean of one value or more."""
    return sum(values) / len(values)
