"""How many steps a config's training has."""

import math
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from lm4ve.errors import UserError, check
from lm4ve.runner.accumulation import iterations_of_update


@dataclass(frozen=True)
class Length:
    """The length of a training.

    Attributes:
        samples (int | None): Entries of the training data; None: they do not matter,
            as the config counts iterations.
        steps (int): Iterations of the training.
        steps_of_update (int): Iterations whose gradients are added up for one update.
    """

    samples: int | None
    steps: int
    steps_of_update: int


def length_of_training(
    cfg: Config, gpus: int = 1, batch: int | None = None, samples: int | None = None
) -> Length:
    """Return how many steps a training has.

    Args:
        cfg (Config): The config.
        gpus (int): Processes that share out an epoch.
        batch (int, optional): Samples of one process in a step; default: the config's.
        samples (int, optional): Entries of the training data. By default the data set is
            built and asked.

    Raises:
        UserError: The config does not train, or its data cannot be read.
    """
    loop = cfg.get('train_cfg')
    loader = cfg.get('train_dataloader')
    if not loop or not loader:
        raise UserError(
            'The config has no train_cfg and train_dataloader: it does not train.'
        )
    if samples is not None:
        check('samples', samples, least=1)
    if batch is None:
        entries = loader.get('batch_size', 1)
    else:
        entries = max(1, batch // samples_of_entry(loader.dataset))
    steps_of_update = iterations_of_update(cfg, gpus, entries)
    if loop.get('max_iters') is not None:
        return Length(samples, loop.max_iters, steps_of_update)
    if samples is None:
        samples = _count_entries(cfg)
    share = math.ceil(samples / gpus)
    multiple = (loader.get('sampler') or {}).get('multiple_of')
    if multiple is not None:  # lm4ve.ReleasedRepeatAugSampler
        share = samples // multiple * multiple // gpus
    if loader.get('drop_last'):
        steps_of_epoch = max(1, share // entries)
    else:
        steps_of_epoch = math.ceil(share / entries)
    return Length(samples, loop.max_epochs * steps_of_epoch, steps_of_update)


def samples_of_entry(dataset: Any) -> int:
    """Return how many samples of a batch an entry of a data set gives.

    Args:
        dataset (ConfigDict): The settings of the data set.
    """
    repeats: int = dataset.get('num_repeats', 1)
    return repeats


def _count_entries(cfg: Config) -> int:
    """Build a config's training data, and return how many entries it has.

    Raises:
        UserError: Its files cannot be read.
    """
    dataset = cfg.train_dataloader.dataset
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        return len(DATASETS.build(dataset))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f'train_dataloader.dataset: {dataset.type} cannot be read to count its '
            f'samples: {error} Fix: --samples N (samples= in Python).'
        ) from error
