"""Inputs and outputs of exported models of volumes."""

import tempfile
from pathlib import Path

import nibabel
import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config

from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.export import TaskExport
from lm4ve.tasks.medical import TASK


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
        steps = [dict(t) for t in pipeline or tested_dataset(cfg).pipeline]
        channels = next(t['channels'] for t in steps if 'channels' in t)
        noise = np.random.default_rng(0).random(
            (count, 32, 32, 32, channels), np.float32
        )
        read, samples = Compose(steps), []
        with tempfile.TemporaryDirectory() as folder:
            paths = dict(
                img_path=Path(folder, 'img.nii'), seg_path=Path(folder, 'seg.nii')
            )
            for img in noise:
                for path, array in zip(
                    paths.values(), (img, 0 * img[..., 0]), strict=True
                ):
                    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
                samples.append(read(dict(paths)))
        return samples


EXPORT = MedicalExport(TASK)
