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
        dataset = tested_dataset(cfg)
        if str(dataset.get('flag')).endswith(
            '3d'
        ):  # MedMNIST's volumes, which no picture holds
            shape = (count, 3, *[dataset.get('size', 28)] * 3)
            noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            return [
                Compose(pipeline or dataset.pipeline)(dict(img=volume))
                for volume in noise
            ]
        return array_samples(
            self.task, cfg, made_up_pictures(count), '.png', pipeline=pipeline
        )


EXPORT = ImageExport(TASK)
