"""How many steps a config's training has, also where its data are not on this machine."""

import math
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from lm4ve.errors import UserError, check
from lm4ve.runner.accumulation import iterations_of_update

#: A data set's type, what is in its fields, and entries of it when complete. A field
#: fits if it has the value, or if it is text that contains it.
SIZES: tuple[tuple[str, dict[str, str], int], ...] = (
    ('CheckedImageNet', dict(split='train'), 1_281_167),
    ('CheckedRepeatAugDataset', dict(ann_file='sthv2_train'), 168_913),
    ('CheckedRepeatAugDataset', dict(ann_file='kinetics400_train'), 240_436),
    ('CheckedVideoDataset', dict(ann_file='kinetics400_train'), 240_436),
    ('ModelNet40', dict(split='train'), 9_843),
    ('ScanObjectNN', dict(split='train', variant='hardest'), 11_416),
    ('ScanObjectNN', dict(split='train', variant='objectbg'), 2_309),
    ('ScanObjectNN', dict(split='train', variant='objectonly'), 2_309),
    ('MotionDataset', dict(cache='argoverse1/train'), 205_942),
    ('MotionDataset', dict(cache='argoverse2/train'), 199_908),
    ('VQAv2', dict(split='train2014'), 443_757),
    ('VQAv2', dict(split='val2014'), 214_354),
    # Each image has five captions.
    ('KarpathyRetrieval', dict(ann_file='flickr30k', split='train'), 145_000),
    ('KarpathyRetrieval', dict(ann_file='coco', split='restval'), 566_747),
    ('SQA3DDataset', dict(split='train'), 26_623),
    ('ScanQADataset', dict(split='train'), 25_563),
    ('MedMNIST', dict(flag='retinamnist', split='train'), 1_080),
    ('MedMNIST', dict(flag='fracturemnist3d', split='train'), 1_027),
    # 72 % of the labeled volumes.
    ('Decathlon', dict(data_root='BrainTumour', split='train'), 348),
    ('Decathlon', dict(data_root='Spleen', split='train'), 30),
)
#: What a data set raises whose files are missing.
_MISSING = (OSError, ValueError, ImportError)


@dataclass(frozen=True)
class Length:
    """The length of a training.

    Attributes:
        samples (int | None): Entries of the training data; None: they do not matter,
            as the config counts iterations.
        source (str): Where that number is from.
        steps (int): Iterations of the training.
        steps_of_update (int): Iterations whose gradients are added up for one update.
    """

    samples: int | None
    source: str
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
            built and asked; if its files are missing, :data:`SIZES` is.

    Raises:
        UserError: The config does not train, or the size of its data is unknown.
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
        return Length(samples, 'max_iters', loop.max_iters, steps_of_update)
    source = 'as given'
    if samples is None:
        samples, source = _size_of_data(cfg)
    share = math.ceil(samples / gpus)
    multiple = (loader.get('sampler') or {}).get('multiple_of')
    if multiple is not None:  # lm4ve.ReleasedRepeatAugSampler
        share = samples // multiple * multiple // gpus
    if loader.get('drop_last'):
        steps_of_epoch = max(1, share // entries)
    else:
        steps_of_epoch = math.ceil(share / entries)
    return Length(samples, source, loop.max_epochs * steps_of_epoch, steps_of_update)


def samples_of_entry(dataset: Any) -> int:
    """Return how many samples of a batch an entry of a data set gives.

    Args:
        dataset (ConfigDict): The settings of the data set.
    """
    repeats: int = dataset.get('num_repeats', 1)
    return repeats


def _size_of_data(cfg: Config) -> tuple[int, str]:
    """Return the entries of a config's training data, and where the number is from."""
    dataset = cfg.train_dataloader.dataset
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        return len(DATASETS.build(dataset)), 'the data on this machine'
    except _MISSING as error:
        size = known_size(dataset)
        if size is None:
            raise UserError(
                f'The training data cannot be read, and the size of {dataset.type} is not '
                f'known: {error} Fix: --samples N.'
            ) from None
        return size, 'the complete data set; it is not on this machine'


def known_size(dataset: Any) -> int | None:
    """Return the entries of a data set by its settings; None if it is not in :data:`SIZES`.

    Args:
        dataset (ConfigDict): Its settings. Of several data sets in one, the sum counts.
    """
    parts = dataset.get('datasets')
    if parts:
        sizes = [known_size(part) for part in parts]
        if None in sizes:
            return None
        return sum(size for size in sizes if size is not None)
    kind = str(dataset.get('type')).rpartition('.')[2]
    for name, fields, size in SIZES:
        if name == kind and _fits(dataset, fields):
            return size
    return None


def _fits(dataset: Any, fields: dict[str, str]) -> bool:
    """Return whether a data set's settings contain all values of some fields."""
    return all(value in (dataset.get(field) or '') for field, value in fields.items())
