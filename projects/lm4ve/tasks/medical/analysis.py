"""Reads a volume's file, and describes its segmentation."""

from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import Compose
from mmengine.config import Config

from lm4ve.tasks.base.analysis import TaskAnalysis
from lm4ve.tasks.medical import TASK


class MedicalAnalysis(TaskAnalysis):
    """Volumes ``[C, H, W, D]``; the results of an inferencer."""

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
    ) -> dict:
        """Send a NIfTI file through the test pipeline; its size may be any."""
        return Compose(pipeline)(dict(img_path=str(path)))

    def result(self, output: Any, classes: Any) -> dict[str, Any]:
        """Return ``pred_seg`` (int64 ``[H, W, D]``) and each structure's ``milliliters``.

        Both are on the grid that the pipeline made, whose ``spacing`` in mm is beside
        them.
        """
        labels, spacing = output.pred_seg.cpu(), output.spacing
        voxel = spacing[0] * spacing[1] * spacing[2] / 1000
        counts = torch.bincount(labels.flatten(), minlength=output.num_classes)[1:]
        known = classes and len(classes) == output.num_classes
        names = classes[1:] if known else range(1, output.num_classes)
        sizes = {str(n): float(c) * voxel for n, c in zip(names, counts, strict=True)}
        return dict(pred_seg=labels.numpy(), spacing=spacing, milliliters=sizes)


ANALYSIS = MedicalAnalysis(TASK)
