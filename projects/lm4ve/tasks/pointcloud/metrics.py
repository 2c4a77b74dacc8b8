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

from lm4ve.errors import UserError
from lm4ve.files import replacing
from lm4ve.registry import METRICS, MODELS
from lm4ve.tasks.pointcloud.models.classifier import PointCloudDataSample


def confusion_matrix(
    labels: Sequence[int], predictions: Sequence[int], num_classes: int
) -> np.ndarray:
    """Count: int64 ``[classes, classes]``, true class by row."""
    from sklearn import metrics  # heavy, and only the end of an evaluation needs it

    return metrics.confusion_matrix(labels, predictions, labels=np.arange(num_classes))


@METRICS.register_module()
class PointCloudAccuracy(BaseMetric):
    """Overall accuracy, mean class accuracy and the confusion matrix.

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
            if 'gt_label' not in sample:
                raise UserError(
                    'accuracy needs labels, and a sample has none. Fix: a data set with gt_label.'
                )
            self.results.append(
                (int(sample['gt_label']), int(sample['pred_label']), len(sample['pred_logits']))
            )

    def compute_metrics(self, results: list) -> dict:
        """Count the kept pairs."""
        labels, predictions, sizes = np.asarray(results, dtype=np.int64).T
        num = int(max(sizes.max(), labels.max() + 1))
        matrix = confusion_matrix(labels, predictions, num)
        total = matrix.sum(axis=1)
        seen = total > 0
        recall = np.full(num, np.nan)
        recall[seen] = matrix.diagonal()[seen] / total[seen]
        self._report(matrix, recall)
        return dict(
            overall=100.0 * matrix.trace() / matrix.sum(),
            mean_class=100.0 * float(recall[seen].mean()),
        )

    def _report(self, matrix: np.ndarray, recall: np.ndarray) -> None:
        names = (self.dataset_meta or {}).get('classes')
        if names is None or len(names) != len(matrix):
            names = [str(i) for i in range(len(matrix))]
        width = max(map(len, names))
        digits = len(str(matrix.max())) + 1
        rows = [
            f'{name:{width}s} '
            + ''.join(f'{n:{digits}d}' for n in row)
            + ('   absent' if np.isnan(r) else f'   {100 * r:5.1f} %')
            for name, row, r in zip(names, matrix, recall, strict=True)
        ]
        MMLogger.get_current_instance().info(
            'confusion matrix (row: true class) and recall\n' + '\n'.join(rows)
        )
        if self.confusion_file is not None:
            with replacing(self.confusion_file) as beside:
                np.savetxt(beside, matrix, fmt='%d')


@MODELS.register_module()
class PointCloudVote(BaseTTAModel):
    """Mean of the logits of a cloud's draws (see ``lm4ve.RepeatDraws``).

    Args:
        module (dict): The classifier.
        **kwargs: Passed to :class:`mmengine.model.BaseTTAModel`.
    """

    def merge_preds(
        self, data_samples_list: list[list[PointCloudDataSample]]
    ) -> list[PointCloudDataSample]:
        """Merge the draws of each cloud.

        Args:
            data_samples_list (list[list[PointCloudDataSample]]): For each cloud
                the predictions for its draws.

        Returns:
            list[PointCloudDataSample]: One prediction for each cloud.
        """
        merged = []
        for draws in data_samples_list:
            sample = draws[0].clone()
            logits = torch.stack([d.pred_logits for d in draws])
            merged.append(sample.set_prediction(logits.mean(dim=0)))
        return merged
