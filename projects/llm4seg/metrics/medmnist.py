"""AUC and accuracy as MedMNIST's own evaluator counts them."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from lm4ve.errors import require
from lm4ve.registry import METRICS


@METRICS.register_module()
class MedMNISTMetric(BaseMetric):
    """``medmnist.evaluator``'s AUC and accuracy, ``medmnist/AUC`` and ``medmnist/ACC`` in per cent.

    What they are depends on the set: AUC is the mean over the classes, each against the
    rest, or of the second class alone where there are two. Labels and scores come from
    the samples (``pred_score``, and ``gt_label`` or ``gt_score``).
    """

    default_prefix = 'medmnist'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep label and scores of each sample; ``data_batch`` is not needed."""
        num_classes = len(self.dataset_meta['classes'])
        is_multi_label = self.dataset_meta['medmnist_task'].startswith('multi-label')
        for sample in data_samples:
            scores = sample['pred_score']
            require(
                scores.shape[-1] == num_classes,
                f'model.head.num_classes={scores.shape[-1]}, but the data set has '
                f'{num_classes} classes. Fix: num_classes={num_classes}.',
            )
            truth = sample['gt_score'] if is_multi_label else sample['gt_label']
            self.results.append((truth.cpu().numpy(), scores.double().cpu().numpy()))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return MedMNIST's AUC and accuracy of all samples, in per cent."""
        from medmnist.evaluator import getACC, getAUC

        truth = np.stack([sample_truth for sample_truth, _ in results])
        scores = np.stack([sample_scores for _, sample_scores in results])
        task = self.dataset_meta['medmnist_task']
        return dict(
            AUC=100 * float(getAUC(truth, scores, task)),
            ACC=100 * float(getACC(truth, scores, task)),
        )
