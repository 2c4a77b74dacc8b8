"""Finds the configs that come with lm4ve by name, and builds their models."""

import fnmatch
import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DefaultScope
from torch import nn

from lm4ve.errors import UserError, check, did_you_mean
from lm4ve.runner.config import read_config
from lm4ve.tasks import all_tasks
from lm4ve.tasks.base.building import build_model
from lm4ve.zoo import MIM_FOLDER

#: Folder of configs -> task, where the names differ. SQA3D's configs lie beside METER's.
_TASKS = {'lm4ve': 'image', 'vision_language': 'vqa'}


@functools.cache
def _models() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return name -> task and entry, of every metafile."""
    found = {}
    for path in load(MIM_FOLDER / 'model-index.yml')['Import']:
        folder = Path(path).parent.name
        for entry in load(MIM_FOLDER / path)['Models']:
            task = 'rooms' if entry['Name'].startswith('sqa3d') else _TASKS.get(folder, folder)
            found[entry['Name']] = (task, entry)
    return found


def list_models(pattern: str | None = None, task: str | None = None) -> list[str]:
    """Return the sorted names of the models with a config in lm4ve.

    Args:
        pattern (str, optional): With ``*`` and ``?``, for example ``'*llama*'``.
        task (str, optional): For example 'motion' or 'image'.

    Raises:
        UserError: There is no such task.
    """
    if task is not None:
        check('task', task, choices=sorted({its for its, _ in _models().values()}))
    names = [name for name, (its, _) in _models().items() if task in (None, its)]
    return sorted(fnmatch.filter(names, pattern or '*'))


def find_config(config: str | Path | Config) -> Config:
    """Return a config: as it is, of a file, or of a model's name.

    Raises:
        UserError: There is neither such a file nor such a name.
    """
    if isinstance(config, Config):
        return config
    if str(config) in _models():
        return read_config(MIM_FOLDER / _models()[str(config)][1]['Config'], set_scope=False)
    if not Path(config).suffix and not Path(config).exists():
        raise UserError(f"There is no model '{config}'.{did_you_mean(str(config), _models())}")
    return read_config(config, set_scope=False)


def in_scope_of(config: Config) -> Any:
    """Return a context in which the types that a config names are found.

    Raises:
        UserError: The config is of a host that is not installed.
    """
    scope = config.get('default_scope') or 'mmengine'
    if find_spec(scope) is None:
        extra = next((t.extra for t in all_tasks() if f'{scope}.' in t.models[0]), scope)
        raise UserError(f'\'{scope}\' is not installed. Fix: pip install "lm4ve[{extra}]".')
    return DefaultScope.overwrite_default_scope(scope)


def get_model(
    config: str | Path | Config,
    pretrained: bool | str | Path = False,
    device: str | None = None,
    allow_partial: bool = False,
    **fields: Any,
) -> nn.Module:
    """Build the model of a config, of any task.

    Args:
        config (str | Path | Config): A name of :func:`list_models`, a file, or a config.
        pretrained (bool | str | Path): A checkpoint to load, which has to fit. True: the
            released one.
        device (str, optional): Where to put the model. Default: the CPU.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        **fields: Override fields of ``model``, for example
            ``neck=dict(block=dict(checkpoint='/path/to/llama-7b'))``.

    Returns:
        nn.Module: The model, in evaluation mode.

    Raises:
        UserError: There is no such config or device, or nothing was released.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another model.
    """
    cfg = find_config(config).copy()
    cfg.merge_from_dict(dict(model=fields))
    if pretrained is True:
        raise UserError(f"Weights of '{config}' are not released. Fix: pretrained= a checkpoint.")
    with in_scope_of(cfg):
        model, _ = build_model(cfg, pretrained or None, allow_partial)
    return model.to(device or 'cpu').eval()
