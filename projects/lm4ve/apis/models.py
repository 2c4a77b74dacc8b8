"""Finds the configs that come with lm4ve by name, and builds their models."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from lm4ve import compat
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.tasks import all_tasks
from lm4ve.tasks.base.building import build_model
from lm4ve.zoo import PRETRAINED


def loaded(config: str | Path | Config) -> Config:
    """Return a config as it is, or read the one that a path or a model's name stands for."""
    compat.activate()
    if isinstance(config, Config):
        return config
    return read_config(config, set_scope=False)


def in_scope_of(config: Config) -> Any:
    """Return a context in which the registries find the types that a config names.

    Raises:
        UserError: The config's default scope is a package that is not installed; the
            message gives the extra of lm4ve that installs it.
    """
    scope = config.get('default_scope') or 'mmengine'
    if find_spec(scope) is None:
        extra = _extra_of(scope)
        raise UserError(
            f'\'{scope}\' is not installed. Fix: pip install "lm4ve[{extra}]".'
        )
    return DefaultScope.overwrite_default_scope(scope)


def _extra_of(scope: str) -> str:
    """Return the extra of lm4ve that installs the package of a scope.

    Without a task of that scope, the scope itself is returned.
    """
    for task in all_tasks():
        if f'{scope}.' in task.models[0]:
            return task.extra
    return scope


def get_model(
    config: str | Path | Config,
    pretrained: bool | str | Path = False,
    device: str | None = None,
    allow_partial: bool = False,
    strict_config: bool = False,
    **fields: Any,
) -> nn.Module:
    """Build the model of a config, of any task.

    Args:
        config (str | Path | Config): A name of :func:`list_models`, a file, or a
            config.
        pretrained (bool | str | Path): A checkpoint to load, which has to fit. True:
            the weights that come with lm4ve, which its demos have.
        device (str, optional): Where to put the model. Default: the CPU.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        strict_config (bool): Raise an error, not a warning, if the checkpoint was trained
            with another model or preprocessing, or does not say so.
        **fields: Override fields of ``model``, for example
            ``neck=dict(block=dict(checkpoint='/path/to/llama-7b'))``.

    Returns:
        nn.Module: The model, in evaluation mode.

    Raises:
        UserError: There is no such config or device.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another
            model, or no weights come with the config.
    """
    cfg = loaded(config).copy()
    cfg.merge_from_dict(dict(model=fields))
    checkpoint: str | Path | None = None
    if pretrained is True:
        checkpoint = PRETRAINED
    elif pretrained:
        checkpoint = pretrained
    with in_scope_of(cfg):
        model, _ = build_model(cfg, checkpoint, allow_partial, strict_config)
    return model.to(device or 'cpu').eval()
