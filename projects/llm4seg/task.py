"""What the package asks of volumes: reads, makes up and exports them, and describes results."""

import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config

from llm4seg import TASK
from lm4ve.errors import UserError
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.base.tested import pipeline_of


class MedicalProtocol(TaskProtocol):
    """Volumes ``[C, H, W, D]``.

    An exported function maps ``[B, C, H, W, D]`` to logits ``[B, classes, H, W, D]``, of
    two classes the second's.
    """

    inputs = {'volumes': "voxels as the test pipeline's last transform gives them"}
    outputs = {
        'logits': 'of each voxel; softmax over classes, or the sigmoid of a single one'
    }

    def read(
        self, source: Any, cfg: Config, pipeline: list[dict], **options: Any
    ) -> dict:
        """Send a NIfTI file through the pipeline; its size may be any."""
        sample: dict = Compose(pipeline)(dict(img_path=str(source)))
        return sample

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return a volume of noise, with labels that are all background."""
        pipeline = pipeline_of(cfg, training)
        shape = (32, 32, 32, _channels_of(pipeline))
        noise = np.random.default_rng(number).random(shape, np.float32)
        with tempfile.TemporaryDirectory() as folder:
            img_path = Path(folder, 'img.nii')
            seg_path = Path(folder, 'seg.nii')
            _write(noise, img_path)
            _write(np.zeros_like(noise[..., 0]), seg_path)
            paths = dict(img_path=img_path, seg_path=seg_path)
            sample: dict = Compose(pipeline)(paths)
        return sample

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


def _channels_of(pipeline: list[dict]) -> int:
    """Return how many channels a pipeline's reader expects in a file."""
    for transform in pipeline:
        if 'channels' in transform:
            return transform['channels']
    raise UserError('No transform of the pipeline has channels. Fix: LoadVolume.')


def _write(volume: np.ndarray, path: Path) -> None:
    """Write a volume with voxels of 1 mm as NIfTI."""
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)


PROTOCOL = MedicalProtocol(TASK)
