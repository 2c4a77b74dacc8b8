"""Loads the inputs of the analysis: a config, a checkpoint, and files or indices.

A file goes through the config's own test pipeline. Mistakes in an input are errors
before a model is built.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from lm4ve.errors import check
from lm4ve.runner.devices import find_device
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.building import (
    NamedSample,
    build_model,
    classes_of,
    collate,
    samples_of_files,
)
from lm4ve.tasks.base.tested import tested_loader

__all__ = [
    'NamedSample',
    'collate',
    'load_model',
    'samples_by_index',
    'samples_of_files',
]

#: Values of CHECKPOINT without a file.
UNTRAINED = ('none', '-')


# ------------------------------------------------------------------------- model
def load_model(
    cfg: Config,
    checkpoint: str,
    device: str | None = None,
    allow_partial: bool = False,
    strict_config: bool = False,
) -> tuple[nn.Module, Sequence[str] | None]:
    """Build a config's model and load a checkpoint; also return the names of its classes.

    The arguments and the errors are those of :func:`load_with_content`.

    Returns:
        tuple[nn.Module, Sequence[str] | None]: The model in evaluation mode, and the
        names of its classes if known.
    """
    model, content = load_with_content(
        cfg, checkpoint, device, allow_partial, strict_config
    )
    return model, classes_of(cfg, content)


def load_with_content(
    cfg: Config,
    checkpoint: str,
    device: str | None = None,
    allow_partial: bool = False,
    strict_config: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a config's model and load a checkpoint, without executing code of it.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        checkpoint (str): A file; 'none' or '-' stand for the weights that training
            with seed 0 would begin with.
        device (str, optional): Default: a GPU if there is one.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        strict_config (bool): Raise an error, not a warning, if the checkpoint was trained
            with another model or preprocessing, or does not say so.

    Returns:
        tuple[nn.Module, dict]: The model in evaluation mode, and the checkpoint's content,
        which is empty without one.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or of another model.
        UserError: There is no such device.
    """
    found_device = find_device(device)
    torch.manual_seed(0)
    if checkpoint in UNTRAINED:
        model, content = build_model(cfg, None, allow_partial)
        model.init_weights()
    else:
        model, content = build_model(cfg, checkpoint, allow_partial, strict_config)
    return model.to(found_device).eval(), content


# ----------------------------------------------------------------------- samples
def samples_by_index(cfg: Config, indices: Sequence[int]) -> list[NamedSample]:
    """Return samples of the config's test data set, named 'test_...'.

    Args:
        cfg (Config): The config.
        indices (Sequence[int]): Their places in the data set, from 0.

    Raises:
        UserError: There is no such sample.
    """
    if not indices:
        return []
    dataset = DATASETS.build(tested_loader(cfg).dataset)
    protocol = task_of_config(cfg).protocol
    samples = []
    for index in indices:
        check('--indices', index, least=0, most=len(dataset) - 1)
        data = dataset[index]
        description = data.get('data_samples', data)
        if isinstance(description, list):
            description = description[0]  # several views have the same name
        name = protocol.sample_name(description, index)
        samples.append(NamedSample(f'test_{name}', data))
    return samples
