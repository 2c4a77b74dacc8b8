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
            label = int(sample['gt_label'])
            prediction = int(sample['pred_label'])
            num_classes = len(sample['pred_logits'])
            self.results.append((label, prediction, num_classes))

    def compute_metrics(self, results: list) -> dict:
        """Count the pairs of label and prediction."""
        # It takes long to import, and only an evaluation needs it.
        from sklearn.metrics import confusion_matrix

        labels, predictions, sizes = np.asarray(results, dtype=np.int64).T
        num_classes = int(max(sizes.max(), labels.max() + 1))
        matrix = confusion_matrix(labels, predictions, labels=np.arange(num_classes))
        total = matrix.sum(axis=1)
        # NaN for classes that do not occur.
        recall = 100.0 * matrix.diagonal() / np.where(total > 0, total, np.nan)
        self._log(matrix, recall)
        overall = 100.0 * matrix.trace() / matrix.sum()
        return dict(overall=overall, mean_class=float(np.nanmean(recall)))

    def _log(self, matrix: np.ndarray, recall: np.ndarray) -> None:
        """Write the confusion matrix and the recall of each class to the log."""
        names = (self.dataset_meta or {}).get('classes', range(len(matrix)))
        lines = ['confusion matrix (a row for each true class) and recall']
        for name, counts, percent in zip(names, matrix, recall, strict=True):
            lines.append(f'{name}: {counts.tolist()} {percent:.1f} %')
        MMLogger.get_current_instance().info('\n'.join(lines))


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
        merged = []
        for draws in data_samples_list:
            logits = torch.stack([draw.pred_logits for draw in draws])
            sample = draws[0].clone()
            merged.append(sample.set_prediction(logits.mean(0)))
        return merged
