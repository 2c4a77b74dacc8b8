"""Batches of the image task for ``lm4ve cost``."""

from mmengine.config import Config

from lm4ve.tasks.base.batches import TaskBatches, pipeline_of
from lm4ve.tasks.base.export import made_up_pictures, samples_of_files
from lm4ve.tasks.image import TASK


class ImageBatches(TaskBatches):
    """Pictures of the size that the config's pipeline gives, all of class 0."""

    def sample(self, cfg: Config, training: bool) -> dict:
        (sample,) = samples_of_files(
            self.task, cfg, made_up_pictures(1), '.png', pipeline=pipeline_of(cfg, training)
        )
        sample['data_samples'].set_gt_label(0)
        return sample


BATCHES = ImageBatches(TASK)
