"""What is known and predicted of a volume, from file to metric."""

from mmengine.structures import BaseDataElement


class VolumeDataSample(BaseDataElement):
    """Truth and prediction of one volume.

    ``gt_seg`` and ``pred_seg`` int64 ``[H, W, D]``; of ``metainfo``, ``spacing`` in mm,
    a number for each axis, ``num_classes``, ``filename`` and ``highest_label``, the largest
    of ``gt_seg``.
    """
