"""Inputs and outputs of exported image models."""

from mmengine.config import Config

from lm4ve.tasks.base.export import TaskExport, made_up_pictures, samples_of_files
from lm4ve.tasks.image import TASK


class ImageExport(TaskExport):
    """Raw pixels ``[B, 3, H, W]`` to logits ``[B, classes]``."""

    inputs = {'images': "pixels from 0 to 255 behind the test pipeline's resizing and cropping"}
    outputs = {'logits': 'one for each class; softmax gives the probabilities'}

    def samples(self, cfg: Config, count: int, pipeline: list[dict] | None = None) -> list[dict]:
        return samples_of_files(self.task, cfg, made_up_pictures(count), '.png', pipeline=pipeline)


EXPORT = ImageExport(TASK)
