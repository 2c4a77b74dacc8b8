"""Build a config's model and load its checkpoint, without executing code of it.

A checkpoint that does not fit is an error, as in ``lm4ve test``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import nn

from lm4ve.runner.checkpoint_files import (
    load_partly,
    load_strictly,
    meta_of,
    read_checkpoint,
    select_state,
)
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
    content = {} if checkpoint is None else read_checkpoint(checkpoint)
    model: nn.Module = MODELS.build(settings)
    if checkpoint is not None:
        origin = f"'{checkpoint}'"
        load = load_partly if allow_partial else load_strictly
        load(model, select_state(content, origin=origin), origin)
    return model, content


def classes_of(cfg: Config, checkpoint: dict[str, Any]) -> Sequence[str] | None:
    """Return the names of the classes in the order of the labels, if anybody knows them.

    Args:
        cfg (Config): Its test data set may name them.
        checkpoint (dict): What :func:`build_model` returned.
    """
    dataset = tested_dataset(cfg)
    meta = meta_of(checkpoint, 'dataset_meta')
    kind = registered(DATASETS, dataset.type)
    found: Sequence[str] | None = (
        (dataset.get('metainfo') or {}).get('classes')
        or meta.get('classes')
        or getattr(kind, 'METAINFO', {}).get('classes')
    )
    return found
