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

from lm4ve.files import replacing
from lm4ve.registry import METRICS, MODELS
from lm4ve.tasks.pointcloud.models.classifier import PointCloudDataSample


def confusion_matrix(
    labels: Sequence[int], predictions: Sequence[int], num_classes: int
) -> np.ndarray:
    """Count predictions by true class (row), int64 ``[classes, classes]``."""
    from sklearn import metrics  # heavy, and only the end of an evaluation needs it

    return metrics.confusion_matrix(labels, predictions, labels=np.arange(num_classes))


@METRICS.register_module()
class PointCloudAccuracy(BaseMetric):
    """Measure overall accuracy, mean class accuracy and the confusion matrix.

    ``accuracy/overall`` and ``accuracy/mean_class`` are in per cent; the mean is
    over classes that occur. The matrix is logged as text, with the recall of
    each class, and goes to ``confusion_file`` if one is given.

    Args:
        confusion_file (str, optional): Where to write the matrix: a text file,
            one row a true class, readable by ``numpy.loadtxt``.
        collect_device (str): Passed to MMEngine's ``BaseMetric``.
        prefix (str, optional): Passed to MMEngine's ``BaseMetric``.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        confusion_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.confusion_file = confusion_file

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep label, prediction and number of classes of each sample."""
        for sample in data_samples:
            self.results.append(
                (int(sample['gt_label']), int(sample['pred_label']), len(sample['pred_logits']))
            )

    def compute_metrics(self, results: list) -> dict:
        """Count the pairs of label and prediction."""
        labels, predictions, sizes = np.asarray(results, dtype=np.int64).T
        matrix = confusion_matrix(labels, predictions, int(max(sizes.max(), labels.max() + 1)))
        total = matrix.sum(axis=1)
        recall = 100.0 * matrix.diagonal() / np.where(total > 0, total, np.nan)
        self._report(matrix, recall)
        return dict(
            overall=100.0 * matrix.trace() / matrix.sum(), mean_class=float(np.nanmean(recall))
        )

    def _report(self, matrix: np.ndarray, recall: np.ndarray) -> None:
        names = (self.dataset_meta or {}).get('classes', ())
        if len(names) != len(matrix):
            names = range(len(matrix))
        lines = [
            f'{name!s:15} {" ".join(f"{n:5d}" for n in row)} {share:7.1f} %'
            for name, row, share in zip(names, matrix, recall, strict=True)
        ]
        MMLogger.get_current_instance().info(
            'confusion matrix (row: true class) and recall\n' + '\n'.join(lines)
        )
        if self.confusion_file is not None:
            with replacing(self.confusion_file) as beside:
                np.savetxt(beside, matrix, fmt='%d')


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
            sample = draws[0].clone()
            logits = torch.stack([d.pred_logits for d in draws])
            merged.append(sample.set_prediction(logits.mean(dim=0)))
        return merged
