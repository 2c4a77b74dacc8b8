"""Reads a volume's file, and describes its segmentation."""

from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import Compose
from mmengine.config import Config

from llm4seg import TASK
from lm4ve.tasks.base.analysis import TaskAnalysis


class MedicalAnalysis(TaskAnalysis):
    """Volumes ``[C, H, W, D]``; the results of an inferencer."""

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
    ) -> dict:
        """Send a NIfTI file through the test pipeline; its size may be any."""
        return Compose(pipeline)(dict(img_path=str(path)))

    def result(self, output: Any, classes: Any) -> dict[str, Any]:
        """Return the class of each voxel and the volume of each structure.

        Args:
            output (VolumeDataSample): With ``pred_seg``, int64 ``[H, W, D]``.
            classes (Sequence[str], optional): Names of the classes; where they are not
                as many as the model's, the numbers take their place.

        Returns:
            dict: ``pred_seg``, the same as an array; ``spacing``, the sides of a voxel in
            mm on the grid that the pipeline made; and ``milliliters``, name of each class
            but the background -> volume.
        """
        labels = output.pred_seg.cpu()
        spacing = output.spacing
        milliliters_a_voxel = spacing[0] * spacing[1] * spacing[2] / 1000
        counts = torch.bincount(labels.flatten(), minlength=output.num_classes)
        if classes and len(classes) == output.num_classes:
            names = classes
        else:
            names = range(output.num_classes)
        milliliters = {}
        # Without the background, which is class 0.
        for name, count in zip(names[1:], counts[1:], strict=True):
            milliliters[str(name)] = float(count) * milliliters_a_voxel
        return dict(pred_seg=labels.numpy(), spacing=spacing, milliliters=milliliters)


ANALYSIS = MedicalAnalysis(TASK)
