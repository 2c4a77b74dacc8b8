"""AUC, accuracy and loss of a head that has more outputs than there are classes."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from lm4ve.errors import require
from lm4ve.registry import METRICS

#: Keeps the logarithm of a probability finite.
_LEAST = float(np.finfo(np.float32).tiny)


@METRICS.register_module()
class WideHeadMetric(BaseMetric):
    """What LLMBoostMedical's code counts on MedMNIST with a head of 1,000 outputs.

    Its source is ``2D_classification/engine.py:195-216``.

    - ``medmnist/ACC`` in per cent: the highest of all outputs is the right class.
    - ``medmnist/AUC`` in per cent: of a softmax over the outputs of the classes alone,
      so that the other outputs do not count.
    - ``medmnist/loss``: the cross-entropy over all outputs, averaged over batches. The
      pictures of a last, smaller batch count more.

    Labels and scores come from the samples (``gt_label`` and ``pred_score``).
    """

    default_prefix = 'medmnist'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep label, scores and weight of each sample; ``data_batch`` is not needed."""
        require(
            not self.dataset_meta['medmnist_task'].startswith('multi-label'),
            'lm4ve.WideHeadMetric is for sets with one label a picture. Fix: '
            'lm4ve.MedMNISTMetric.',
        )
        weight = 1 / len(data_samples)
        for sample in data_samples:
            scores = sample['pred_score'].double().cpu().numpy()
            self.results.append((int(sample['gt_label']), scores, weight))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return AUC and accuracy of all samples, in per cent, and the loss."""
        from medmnist.evaluator import getAUC

        labels = np.array([label for label, _, _ in results])
        scores = np.stack([sample_scores for _, sample_scores, _ in results])
        weights = np.array([weight for _, _, weight in results])
        num_classes = len(self.dataset_meta['classes'])
        of_classes = np.maximum(scores[:, :num_classes], _LEAST)
        of_classes /= of_classes.sum(axis=1, keepdims=True)
        auc = getAUC(labels[:, None], of_classes, self.dataset_meta['medmnist_task'])
        right = scores.argmax(axis=1) == labels
        of_truth = scores[np.arange(len(labels)), labels]
        losses = -np.log(np.maximum(of_truth, _LEAST))
        return dict(
            AUC=100 * float(auc),
            ACC=100 * float(right.mean()),
            loss=float(np.average(losses, weights=weights)),
        )
