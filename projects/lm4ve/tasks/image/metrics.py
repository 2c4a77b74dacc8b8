"""Accuracies of the ImageNet variants, on top of mmpretrain's ``Accuracy``."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

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
            self.results.append(
                dict(pred_score=sample['pred_score'].cpu()[indices], gt_label=place)
            )


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
            pred = sample['pred_label'] if scores is None else scores.argmax()
            self.results.append(
                (
                    sample['corruption'],
                    int(sample['severity']),
                    int(pred),
                    int(sample['gt_label']),
                )
            )

    def compute_metrics(self, results: list[tuple]) -> dict:
        # (corruption, severity) -> predictions and labels.
        groups: dict[tuple[str, int], tuple[list, list]] = defaultdict(lambda: ([], []))
        for corruption, severity, pred, label in results:
            preds, labels = groups[corruption, severity]
            preds.append(pred)
            labels.append(label)
        meta = self.dataset_meta or {}
        named = itertools.product(
            meta.get('corruptions', ()), meta.get('severities', ())
        )
        if missing := [f'{c}/{s}' for c, s in named if (c, s) not in groups]:
            raise UserError(
                f'CorruptionAccuracy: no sample of {listing(missing)} was tested.'
            )
        accuracies = {
            group: self.calculate(torch.tensor(preds), torch.tensor(labels)).item()
            for group, (preds, labels) in groups.items()
        }
        by_corruption: dict[str, dict[int, float]] = defaultdict(dict)
        for (corruption, severity), accuracy in accuracies.items():
            by_corruption[corruption][severity] = accuracy
        means = {c: _mean(s.values()) for c, s in by_corruption.items()}
        metrics = dict(top1=_mean(accuracies.values()), **means)
        if all(set(by_corruption[c]) >= set(SEVERITIES) for c in CORRUPTIONS):
            metrics['mCE'] = _mean(
                100 * (100 - means[c]) / ALEXNET_ERRORS[c] for c in CORRUPTIONS
            )
        return metrics


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)
