"""What a config tests and trains with: data loaders, data sets, their pipelines, metrics."""

from typing import Any

from mmengine.config import Config

from lm4ve.errors import UserError, check
from lm4ve.runner.trained_config import innermost_dataset


def tested_loader(cfg: Config) -> Any:
    """Return the settings of a config's test data loader (else validation's).

    Raises:
        UserError: It has neither.
    """
    loader = cfg.get('test_dataloader')
    if not loader:
        loader = cfg.get('val_dataloader')
    check('test_dataloader', loader, kind=dict)
    return loader


def tested_evaluator(cfg: Config) -> Any:
    """Return the settings of a config's test evaluator (else validation's), or None."""
    evaluator = cfg.get('test_evaluator')
    if not evaluator:
        evaluator = cfg.get('val_evaluator')
    return evaluator


def tested_dataset(cfg: Config) -> Any:
    """Return the settings of a config's test data set (else validation's)."""
    return innermost_dataset(tested_loader(cfg).dataset)


def tested_field(cfg: Config, name: str, default: Any) -> Any:
    """Return a field of a config's test data set; ``default`` where none has it."""
    if not (cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        return default
    return tested_dataset(cfg).get(name, default)


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


def pipeline_of(cfg: Config, training: bool = False) -> list[dict]:
    """Return copies of the transforms through which a config's samples go.

    The copies are new in each call, so that a task may change them for its input.

    Args:
        cfg (Config): The config.
        training (bool): Those of the training; else those of the test.

    Raises:
        UserError: The data set has no ``pipeline``.
    """
    if training:
        field = 'train_dataloader'
        dataset = trained_dataset(cfg)
    else:
        field = 'test_dataloader'
        dataset = tested_dataset(cfg)
    if 'pipeline' not in dataset:
        raise UserError(
            f"{field}.dataset (type='{dataset.type}') has no pipeline, through which "
            'files go. Fix: pipeline=[...] with its transforms, or pipeline=[] for none.'
        )
    return [dict(transform) for transform in dataset.pipeline]
