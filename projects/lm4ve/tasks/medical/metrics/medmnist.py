"""AUC and accuracy as MedMNIST's own evaluator counts them."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from lm4ve.errors import check
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
        """Keep label and scores of each sample."""
        classes = (len(self.dataset_meta['classes']),)
        for sample in data_samples:
            check(
                'model.head.num_classes',
                sample['pred_score'].shape[-1],
                choices=classes,
            )
            several = self.dataset_meta['medmnist_task'].startswith('multi-label')
            truth = sample['gt_score' if several else 'gt_label']
            scores = sample['pred_score'].double().cpu().numpy()
            self.results.append((truth.cpu().numpy(), scores))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Hand all of them to the evaluator."""
        from medmnist.evaluator import getACC, getAUC

        truth, scores = (np.stack(rows) for rows in zip(*results, strict=True))
        task = self.dataset_meta['medmnist_task']
        measures = dict(AUC=getAUC, ACC=getACC)
        return {
            k: 100 * float(measure(truth, scores, task))
            for k, measure in measures.items()
        }
