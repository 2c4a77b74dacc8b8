"""What is known and predicted of a cloud, from file to metric."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class PointCloudDataSample(BaseDataElement):
    """Label and prediction of one cloud.

    ``gt_label`` int64 ``[1]``; ``pred_logits`` and ``pred_scores`` float
    ``[classes]``; ``pred_label`` int64 ``[1]``.
    """

    def set_prediction(self, logits: Tensor) -> 'PointCloudDataSample':
        """Set the prediction from logits ``[classes]``; returns itself."""
        self.pred_logits = logits
        self.pred_scores = logits.softmax(-1)
        self.pred_label = logits.argmax(-1, keepdim=True)
        return self
