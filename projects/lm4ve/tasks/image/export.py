"""Inputs and outputs of exported image models."""

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config

from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.export import TaskExport, array_samples, made_up_pictures
from lm4ve.tasks.image import TASK


class ImageExport(TaskExport):
    """Raw pixels ``[B, 3, H, W]`` to logits ``[B, classes]``."""

    inputs = {
        'images': "pixels from 0 to 255 behind the test pipeline's resizing and cropping"
    }
    outputs = {'logits': 'one for each class; softmax gives the probabilities'}

    def samples(
        self, cfg: Config, count: int, pipeline: list[dict] | None = None
    ) -> list[dict]:
        """Return samples of made-up pictures, or of volumes where the data set has these."""
        dataset = tested_dataset(cfg)
        if str(dataset.get('flag')).endswith('3d'):
            # MedMNIST's volumes, which no image file holds.
            transform = Compose(pipeline or dataset.pipeline)
            volumes = _made_up_volumes(count, dataset.get('size', 28))
            return [transform(dict(img=volume)) for volume in volumes]
        pictures = made_up_pictures(count)
        return array_samples(self.task, cfg, pictures, '.png', pipeline=pipeline)


def _made_up_volumes(count: int, size: int) -> np.ndarray:
    """Return volumes of noise, uint8 ``[count, 3, size, size, size]``."""
    shape = (count, 3, size, size, size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


EXPORT = ImageExport(TASK)
