"""Batches of the video task for ``lm4ve cost``."""

from mmengine.config import Config

from lm4ve.tasks.base.batches import TaskBatches, pipeline_of
from lm4ve.tasks.video import TASK
from lm4ve.tasks.video.export import made_up_clips


class VideoBatches(TaskBatches):
    """Clips of as many frames, views and pixels as the config's pipeline gives, of class 0."""

    def sample(self, cfg: Config, training: bool) -> dict:
        (sample,) = made_up_clips(cfg, 1, pipeline_of(cfg, training), label=0)
        return sample


BATCHES = VideoBatches(TASK)
