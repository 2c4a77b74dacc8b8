"""Inputs and outputs of exported models of volumes."""

import tempfile
from pathlib import Path

import nibabel
import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config

from llm4seg import TASK
from lm4ve.errors import UserError
from lm4ve.tasks.base.analysis import tested_pipeline
from lm4ve.tasks.base.export import TaskExport


class MedicalExport(TaskExport):
    """Volumes ``[B, C, H, W, D]`` to logits ``[B, classes, H, W, D]``, of two classes the second's.

    No data are needed: files of noise, with labels that are all background, go through
    the pipeline.
    """

    inputs = {'volumes': "voxels as the test pipeline's last transform gives them"}
    outputs = {
        'logits': 'of each voxel; softmax over classes, or the sigmoid of a single one'
    }

    def samples(
        self, cfg: Config, count: int, pipeline: list[dict] | None = None
    ) -> list[dict]:
        """Return volumes of noise that went through a pipeline (default: the test's)."""
        transforms = [dict(t) for t in pipeline or tested_pipeline(cfg)]
        shape = (count, 32, 32, 32, _channels_of(transforms))
        noise = np.random.default_rng(0).random(shape, np.float32)
        transform = Compose(transforms)
        samples = []
        with tempfile.TemporaryDirectory() as folder:
            img_path = Path(folder, 'img.nii')
            seg_path = Path(folder, 'seg.nii')
            for img in noise:
                _write(img, img_path)
                _write(np.zeros_like(img[..., 0]), seg_path)
                samples.append(transform(dict(img_path=img_path, seg_path=seg_path)))
        return samples


def _channels_of(pipeline: list[dict]) -> int:
    """Return how many channels a pipeline's reader expects in a file."""
    for transform in pipeline:
        if 'channels' in transform:
            return transform['channels']
    raise UserError('No transform of the pipeline has channels. Fix: LoadVolume.')


def _write(volume: np.ndarray, path: Path) -> None:
    """Write a volume with voxels of 1 mm as NIfTI."""
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)


EXPORT = MedicalExport(TASK)
