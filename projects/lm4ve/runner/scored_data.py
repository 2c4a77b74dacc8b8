"""What is scored: every sample of it once, or a number that says which part.

MMEngine's data sets replace a sample without pixels by a random one, unless their field
``test_mode`` is on; mmpretrain's ``KFoldDataset`` takes its training part. Forgotten in a
validation set, the metric is over other samples than it says. So the field is not the
user's to remember: it is set here in all data sets that are scored.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from lm4ve.errors import require

#: The splits that are scored.
SCORED = ('val', 'test')
#: The entries of the metrics in which samples are left out.
SCORED_KEY = 'samples/scored'
TOTAL_KEY = 'samples/total'


def set_test_mode(cfg: Config) -> list[str]:
    """Switch ``test_mode`` on in all data sets of validation and test.

    Args:
        cfg (Config): Changed in place.

    Returns:
        list[str]: The fields of the data sets that did not say so themselves.

    Raises:
        UserError: A config switches it off, or a data set that is built already lacks it.
    """
    changed = []
    for split in SCORED:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        if isinstance(loader, Mapping):
            dataset = loader.get('dataset')
        else:
            dataset = loader.dataset
        changed += _set_in(dataset, f'{split}_dataloader.dataset', cfg)
    return changed


def _set_in(node: Any, field: str, cfg: Config) -> list[str]:
    """Switch ``test_mode`` on in a data set and in all that it wraps or joins.

    Args:
        node: A data set or its config.
        field (str): The field of the config that has it.
        cfg (Config): The whole config, for the scope.

    Returns:
        list[str]: The fields of the data sets that were changed.
    """
    if not isinstance(node, dict):
        for dataset in datasets_within(node):
            is_forgotten = isinstance(dataset, BaseDataset) and not dataset.test_mode
            require(
                not is_forgotten,
                f'{field}: a {type(dataset).__name__} that is scored was built without '
                'test_mode. Fix: test_mode=True.',
            )
        return []
    changed = []
    if _has_test_mode(node.get('type'), cfg):
        require(
            node.get('test_mode', True),
            f'{field}.test_mode={node.get("test_mode")!r}: the metric would be over other '
            'samples than it says. Fix: leave it out.',
        )
        if 'test_mode' not in node:
            node['test_mode'] = True
            changed.append(field)
    # The fields of wrappers: of one data set, and of several.
    parts = {'dataset': node.get('dataset')}
    joined = node.get('datasets')
    if isinstance(joined, (list, tuple)):
        for number, part in enumerate(joined):
            parts[f'datasets.{number}'] = part
    for name, part in parts.items():
        if part is not None:
            changed += _set_in(part, f'{field}.{name}', cfg)
    return changed


def _has_test_mode(data_class: Any, cfg: Config) -> bool:
    """Return whether a ``type`` of a config takes ``test_mode``.

    That is any ``BaseDataset`` of MMEngine, and mmpretrain's ``KFoldDataset``, which takes
    its training part without it.
    """
    if isinstance(data_class, str):
        scope = cfg.get('default_scope') or 'mmengine'
        with DATASETS.switch_scope_and_registry(scope) as registry:
            data_class = registry.get(data_class)
    if not isinstance(data_class, type):
        return False
    if issubclass(data_class, BaseDataset):
        return True
    return 'test_mode' in inspect.signature(data_class).parameters


def datasets_within(dataset: Any) -> Iterator[Any]:
    """Yield the data sets that read samples themselves, within wrappers and joined ones."""
    joined = getattr(dataset, 'datasets', None)
    if isinstance(joined, (list, tuple)):
        for part in joined:
            yield from datasets_within(part)
    elif not isinstance(dataset, BaseDataset) and hasattr(dataset, 'dataset'):
        yield from datasets_within(dataset.dataset)
    else:
        yield dataset


@dataclass(frozen=True)
class SampleCounts:
    """How many samples a metric is over, and how many there would be without damage."""

    scored: int
    total: int

    def __str__(self) -> str:
        return f'{self.scored:,} of {self.total:,} samples'

    def as_metrics(self) -> dict[str, int]:
        """Return both as entries of the metrics."""
        return {SCORED_KEY: self.scored, TOTAL_KEY: self.total}


def count_samples(dataset: Any) -> SampleCounts | None:
    """Count the samples of a data set and those that it leaves out for damage.

    Returns:
        SampleCounts | None: None for a stream, which has no length.
    """
    if not hasattr(dataset, '__len__'):
        return None
    left_out = 0
    for part in datasets_within(dataset):
        left_out += getattr(part, 'num_left_out', 0)
    return SampleCounts(len(dataset), len(dataset) + left_out)


class SampleCountHook(Hook):  # type: ignore[misc]
    """Add the numbers of samples to the metrics wherever samples are left out.

    So the log, its curves and every file with metrics have them.
    """

    # Before the hooks that write metrics.
    priority = 'HIGHEST'

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Add them to the scores of a validation."""
        _add_counts(metrics, runner.val_dataloader.dataset)

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Add them to the scores of a test."""
        _add_counts(metrics, runner.test_dataloader.dataset)


def _add_counts(metrics: dict[str, Any] | None, dataset: Any) -> None:
    """Add the numbers of samples to metrics, in place, if samples are left out."""
    counts = count_samples(dataset)
    if metrics is None or counts is None or counts.scored == counts.total:
        return
    metrics.update(counts.as_metrics())
    print_log(
        f'The metrics are over {counts}.', logger='current', level=logging.WARNING
    )
