"""Synthetic batches of the point-cloud task for the cost tool."""

import torch
from mmengine.config import Config

from lm4ve.tasks.base.batches import TaskBatches, pipeline_of
from lm4ve.tasks.base.export import samples_of_files
from lm4ve.tasks.pointcloud import TASK
from lm4ve.tasks.pointcloud.export import made_up_clouds


class PointCloudBatches(TaskBatches):
    """Clouds of as many points as the config's pipeline keeps, all of class 0."""

    def sample(self, cfg: Config, training: bool) -> dict:
        (sample,) = samples_of_files(
            self.task, cfg, made_up_clouds(1), '.npy', pipeline=pipeline_of(cfg, training)
        )
        sample['data_samples'].gt_label = torch.zeros(1, dtype=torch.int64)
        return sample


BATCHES = PointCloudBatches(TASK)
