"""Made-up batches of full size, without a data set, for :mod:`lm4ve.cost` and benchmarks.

By default a sample is one that the task's export makes up, sent through the config's
own pipeline, so that sizes, crops and views are those of the config. A task with other
samples has an object ``BATCHES`` in ``lm4ve/tasks/<task>/batches.py``.
"""

from typing import Any

import torch
from mmengine.config import Config

from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.building import collate
from lm4ve.tasks.base.task import Task


class TaskBatches:
    """Makes samples and batches of a task.

    Args:
        task (Task): The declaration.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def imagine(self, model: Any) -> None:
        """Change a model's config so that building it needs no files but checkpoints.

        A task whose models read other files, such as lists of answers, puts made-up values
        in their place. By default there are none.

        Args:
            model (ConfigDict): The model's config, changed in place.
        """

    def sample(self, cfg: Config, training: bool) -> dict:
        """Return one sample of full size, as the data set gives it.

        By default it is one that the task's export makes up, labeled as class 0.

        Args:
            cfg (Config): The config.
            training (bool): Whether it goes through the pipeline of the training; else
                through that of the test.
        """
        pipeline = pipeline_of(cfg, training)
        sample = self.task.export.samples(cfg, 1, pipeline)[0]
        if 'data_samples' in sample:
            sample['data_samples'].gt_label = torch.zeros(1, dtype=torch.int64)
        return sample

    def batch(self, cfg: Config, count: int, training: bool) -> Any:
        """Return a batch as the test's data loader gives it, before the preprocessor.

        Args:
            cfg (Config): The config.
            count (int): How many samples; they are equal.
            training (bool): See :meth:`sample`.
        """
        return collate(cfg, [self.sample(cfg, training)] * count)


def trained_dataset(cfg: Config) -> Any:
    """Return the settings of a config's training data set; without one, the tested one's."""
    loader = cfg.get('train_dataloader')
    if loader is None:
        return tested_dataset(cfg)
    dataset = loader.dataset
    while 'pipeline' not in dataset:
        if dataset.get('dataset'):
            # A wrapper, such as one that repeats a data set.
            dataset = dataset.dataset
        elif dataset.get('datasets'):
            # Several data sets in one; the first stands for all.
            dataset = dataset.datasets[0]
        else:
            break
    return dataset


def pipeline_of(cfg: Config, training: bool) -> list[dict]:
    """Return copies of the transforms of the training's pipeline, or of the test's."""
    if training:
        dataset = trained_dataset(cfg)
    else:
        dataset = tested_dataset(cfg)
    return [dict(transform) for transform in dataset.pipeline]
