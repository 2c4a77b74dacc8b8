"""Checks the data: how many samples, how many classes, and whether labels and head agree."""

import copy
import math
import time
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.dist import get_world_size
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import DamagedFilesError, listing
from lm4ve.runner.loops import refuse_no_batches
from lm4ve.runner.scored_data import SCORED, datasets_within, set_test_mode

SPLITS = ('train', 'val')
#: Seconds after which the labels of a data set are not counted any further.
_PATIENCE = 40.0
#: Names of the label in entries of data lists: of mmpretrain and ours, of mmaction2.
_LABELS = ('gt_label', 'label')
#: A model's field with its head.
_HEADS = ('head', 'cls_head', 'decode_head')


def check_data(plan: Plan) -> Finding:
    """Build the data of training and validation, and count samples and classes.

    All files of the validation are read, as the training does before its first step;
    :mod:`lm4ve.dry_run.files` says what is damaged, and reads some of the training's.

    Raises:
        UserError: A data set refuses its files, folders or lists.
        StorageError: Storage does not give a file.
    """
    cfg = plan.cfg
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    set_test_mode(cfg)
    parts = []
    problems = []
    facts: dict[str, object] = {}
    for split in SPLITS:
        if not cfg.get(f'{split}_dataloader'):
            continue
        loader = _build_loader(plan, split)
        plan.loaders[split] = loader
        counts = count_labels(loader.dataset)
        plan.class_ends[split] = counts.ends
        parts.append(f'{split} {len(loader.dataset):,} samples{counts.describe()}')
        facts[f'samples of {split}'] = len(loader.dataset)
        classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
        if isinstance(classes, (list, tuple)):
            facts[f'classes of {split}'] = len(classes)
            problems += _too_large_heads(cfg, split, len(classes))
            problems += counts.missing(split, classes)
    if 'train' in plan.loaders:
        loader = plan.loaders['train']
        refuse_no_batches(loader)
        problems += _too_large_batch(cfg, len(loader.dataset))
        plan.iterations = count_iterations(cfg, len(loader))
    return warning_if(' '.join(problems), '; '.join(parts) or 'none')


def _build_loader(plan: Plan, split: str) -> Any:
    """Build a dataloader; keep the error of damaged files for the check of these."""
    try:
        return build_loader(plan.cfg, split, scans=split in SCORED)
    except DamagedFilesError as error:
        plan.damage = error
    # The checks that follow need the data.
    return build_loader(plan.cfg, split, scans=False)


def build_loader(cfg: Config, split: str, scans: bool) -> Any:
    """Build a dataloader as the training does, but without workers.

    Args:
        cfg (Config): It is not changed.
        split (str): 'train' or 'val'.
        scans (bool): Let data sets read all of their files, as far as they do so.

    Raises:
        DamagedFilesError: Some are damaged, and may not be left out.
    """
    fields = copy.deepcopy(cfg[f'{split}_dataloader'])
    fields.num_workers = 0
    fields.persistent_workers = False
    fields.pop('prefetch_factor', None)
    if not scans:
        _switch_scans_off(fields)
    # A seed that is given needs no agreement with other processes.
    return Runner.build_dataloader(fields, seed=0)


def _switch_scans_off(node: Any) -> None:
    """Set ``verify=False`` in all data sets of a part of a config that would read all files."""
    children: Any = ()
    if isinstance(node, ConfigDict):
        children = list(node.values())
        data_class = node.get('type')
        if isinstance(data_class, str):
            data_class = DATASETS.get(data_class)
        if isinstance(data_class, type) and issubclass(data_class, IntegrityMixin):
            node.verify = False
    elif isinstance(node, (list, tuple)):
        children = node
    for child in children:
        _switch_scans_off(child)


class LabelCounts:
    """How many samples each label has, and where it begins and ends.

    Attributes:
        counts (dict[int, int]): Label -> samples.
        first, last (dict[int, int]): Label -> index of a sample.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}

    def add(self, label: int, index: int) -> None:
        """Count a sample."""
        self.counts[label] = self.counts.get(label, 0) + 1
        self.first.setdefault(label, index)
        self.last[label] = index

    @property
    def ends(self) -> list[int]:
        """The first and the last sample of each label, sorted."""
        return sorted({*self.first.values(), *self.last.values()})

    def describe(self) -> str:
        """Return ' of 3 classes (5 to 7 each)' for the table, or ''."""
        if not self.counts:
            return ''
        least = min(self.counts.values())
        most = max(self.counts.values())
        each = f'{least:,}' if least == most else f'{least:,} to {most:,}'
        return f' of {len(self.counts):,} classes ({each} each)'

    def missing(self, split: str, classes: Any) -> list[str]:
        """Return a sentence on the classes without a sample, in a list, or an empty list."""
        if not self.counts:
            return []
        names = [name for label, name in enumerate(classes) if label not in self.counts]
        if not names:
            return []
        return [f'{split}: no sample of {len(names)} classes ({listing(names, 3)}).']


def count_labels(dataset: Any) -> LabelCounts:
    """Count the labels of a data set that has one a sample, in the list of its entries.

    Returns:
        LabelCounts: Empty if samples have no label, if several data sets are joined, or
        if the entries take too long to read.
    """
    counts = LabelCounts()
    inner = list(datasets_within(dataset))
    if len(inner) != 1 or not isinstance(inner[0], BaseDataset):
        return counts
    ends_at = time.monotonic() + _PATIENCE
    for index in range(len(inner[0])):
        label = _label_of(inner[0].get_data_info(index))
        if label is None or time.monotonic() > ends_at:
            return LabelCounts()
        counts.add(label, index)
    return counts


def _label_of(info: Mapping[str, Any]) -> int | None:
    """Return the label of an entry of a data list, or None if it has none or several."""
    for name in _LABELS:
        label = info.get(name)
        if isinstance(label, int):
            return label
    return None


def _too_large_heads(cfg: Config, split: str, classes: int) -> list[str]:
    """Return a sentence on a head with more classes than the data, in a list.

    One with fewer is refused by the steps.
    """
    for name in _HEADS:
        head = cfg.model.get(name)
        if not isinstance(head, Mapping):
            continue
        count = head.get('num_classes')
        if isinstance(count, int) and count > classes:
            return [f'model.{name}.num_classes={count}, but {split} has {classes}.']
    return []


def _too_large_batch(cfg: Config, samples: int) -> list[str]:
    """Return a sentence, in a list, if no batch has as many samples as the config says.

    Args:
        cfg (Config): The config.
        samples (int): How many samples the training data has for all processes.
    """
    wanted = cfg.train_dataloader.get('batch_size', 1)
    each = math.ceil(samples / get_world_size())
    if wanted <= each:
        return []
    return [
        f'train_dataloader.batch_size={wanted} is more than the {each} samples of a process: '
        f'batches are smaller than the learning rate is for. Fix: a batch_size of at most {each}.'
    ]


def count_iterations(cfg: Config, epoch_length: int) -> int:
    """Return how many iterations a process trains.

    Args:
        cfg (Config): The config.
        epoch_length (int): Batches of an epoch.
    """
    training = cfg.get('train_cfg') or {}
    if training.get('max_epochs'):
        return int(training['max_epochs']) * epoch_length
    return int(training.get('max_iters') or 0)
