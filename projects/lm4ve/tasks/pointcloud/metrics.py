"""Overall and mean class accuracy, the confusion matrix, and voting.

Point-BERT's own test script repeats its ten-vote test nine times and reports the
best, and keeps the checkpoint that scores best on the test set. Both overstate.
Here a test is one pass, voted or not, with draws that a seed fixes, and no
config keeps a checkpoint by its test score.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel

from lm4ve.registry import METRICS, MODELS
from lm4ve.tasks.pointcloud.structures import PointCloudDataSample


@METRICS.register_module()
class PointCloudAccuracy(BaseMetric):
    """Measure overall accuracy, mean class accuracy and the confusion matrix.

    ``accuracy/overall`` and ``accuracy/mean_class`` are in per cent; the mean is
    over classes that occur. The matrix is logged as text, with the recall of
    each class.

    Args:
        **kwargs: Passed to MMEngine's ``BaseMetric``.
    """

    default_prefix = 'accuracy'

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep label, prediction and number of classes of each sample."""
        for sample in data_samples:
            label, prediction = int(sample['gt_label']), int(sample['pred_label'])
            self.results.append((label, prediction, len(sample['pred_logits'])))

    def compute_metrics(self, results: list) -> dict:
        """Count the pairs of label and prediction."""
        from sklearn.metrics import (
            confusion_matrix,
        )  # heavy, and only evaluation needs it

        labels, predictions, sizes = np.asarray(results, dtype=np.int64).T
        count = int(max(sizes.max(), labels.max() + 1))
        matrix = confusion_matrix(labels, predictions, labels=np.arange(count))
        total = matrix.sum(axis=1)
        recall = 100.0 * matrix.diagonal() / np.where(total > 0, total, np.nan)
        names = (self.dataset_meta or {}).get('classes', range(count))
        rows = (
            f'{n}: {c.tolist()} {r:.1f} %'
            for n, c, r in zip(names, matrix, recall, strict=True)
        )
        text = '\n'.join(
            ['confusion matrix (a row for each true class) and recall', *rows]
        )
        MMLogger.get_current_instance().info(text)
        overall = 100.0 * matrix.trace() / matrix.sum()
        return dict(overall=overall, mean_class=float(np.nanmean(recall)))


@MODELS.register_module()
class PointCloudVote(BaseTTAModel):
    """Average the logits of a cloud's draws (see ``lm4ve.RepeatDraws``).

    Args:
        module (dict): The classifier.
        **kwargs: Passed to :class:`mmengine.model.BaseTTAModel`.
    """

    def merge_preds(
        self, data_samples_list: list[list[PointCloudDataSample]]
    ) -> list[PointCloudDataSample]:
        """Merge the predictions for the draws of each cloud to one."""
        means = [
            torch.stack([d.pred_logits for d in draws]).mean(0)
            for draws in data_samples_list
        ]
        samples = [draws[0].clone() for draws in data_samples_list]
        return [s.set_prediction(mean) for s, mean in zip(samples, means, strict=True)]
