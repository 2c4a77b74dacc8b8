"""Averages the predictions for several views of a picture, in test-time augmentation."""

from collections.abc import Sequence

from mmpretrain.models import AverageClsScoreTTA
from mmpretrain.structures import DataSample

from lm4ve.registry import MODELS


@MODELS.register_module()
class AverageViews(AverageClsScoreTTA):
    """mmpretrain's ``AverageClsScoreTTA``, whose label is that of the averaged scores.

    mmpretrain keeps the label of the first view. Metrics read the scores, but files of
    predictions and pictures show the label.
    """

    def _merge_single_sample(self, data_samples: Sequence[DataSample]) -> DataSample:
        merged = super()._merge_single_sample(data_samples)
        return merged.set_pred_label(merged.pred_score.argmax(-1))
