"""Builds a config's model and loads its checkpoint, without executing code of the file.

A checkpoint that does not fit is an error, as in ``lm4ve test``.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, MODELS
from torch import nn

from lm4ve.runner import checkpoint_files as files
from lm4ve.runner.devices import find_device
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.inputs import registered


def build_model(
    cfg: Config, checkpoint: str | Path | None = None, allow_partial: bool = False
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a model, on the CPU and in training mode.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        checkpoint (str | Path, optional): Default: nothing is loaded.
        allow_partial (bool): Load what fits of a checkpoint of another model.

    Returns:
        tuple[nn.Module, dict]: The model and the checkpoint's content, empty without one.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or of another model.
    """
    settings = cfg.model
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    content = {} if checkpoint is None else files.read_checkpoint(checkpoint)
    model: nn.Module = MODELS.build(settings)
    if checkpoint is not None:
        origin = f"'{checkpoint}'"
        load = files.load_partly if allow_partial else files.load_strictly
        load(model, files.select_state(content, origin=origin), origin)
    return model, content


def inference_model(
    cfg: Config, checkpoint: str | Path | None, device: str | None, allow_partial: bool
) -> tuple[nn.Module, Sequence[str] | None]:
    """Build a model for inference, with a warning if it has no checkpoint.

    Returns:
        tuple[nn.Module, Sequence[str] | None]: The model on its device in evaluation mode, and
        its classes (:func:`classes_of`).
    """
    place = find_device(device)
    model, content = build_model(cfg, checkpoint, allow_partial)
    if checkpoint is None:
        text = 'No checkpoint: the model is untrained, and its results are meaningless.'
        print_log(text, logger='current', level=logging.WARNING)
    return model.to(place).eval(), classes_of(cfg, content)


def classes_of(cfg: Config, checkpoint: dict[str, Any]) -> Sequence[str] | None:
    """Return the class names in the order of the labels, from config, checkpoint or data set.

    Args:
        cfg (Config): The config.
        checkpoint (dict): The content that :func:`build_model` returned.
    """
    dataset = tested_dataset(cfg)
    kind = registered(DATASETS, dataset.type)
    sources = (
        dataset.get('metainfo'),
        files.meta_of(checkpoint, 'dataset_meta'),
        getattr(kind, 'METAINFO', None),
    )
    return next((s['classes'] for s in sources if s and s.get('classes')), None)
