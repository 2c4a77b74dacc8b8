"""Carry the configs (``.mim/``), so that other projects, commands and mmpretrain find them.

``_base_ = 'lm4ve::lm4ve/vit-s_llama_in1k.py'`` reads a file below ``.mim/configs``, and
``mmpretrain.get_model('vit-s_llama_in1k')`` a model that the image metafile lists. The metafiles
of the other tasks are not registered there: mmpretrain cannot build their models.
"""

import functools
from pathlib import Path
from typing import Any

import wrapt
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import load

#: The folder that holds ``configs`` and ``model-index.yml``.
MIM_FOLDER = Path(__file__).parent / '.mim'
#: Folder of configs -> task, where the names differ. SQA3D's configs lie beside METER's.
_TASKS = {'lm4ve': 'image', 'vision_language': 'vqa'}

# `_base_ = 'lm4ve::...'` looks for `.mim/configs` in the folder of a *module*
# when no distribution has this name. The subpackage is found in an editable
# install and in a wheel; the name `lm4ve` alone is not (the distribution's
# location says nothing of where an editable install keeps its code).
MODULE2PACKAGE.setdefault('lm4ve', 'lm4ve.zoo')


@wrapt.patch_function_wrapper(Config, '_get_cfg_path')
def _without_our_scope(wrapped: Any, _: Any, args: Any, kwargs: Any) -> tuple[str, str | None]:
    """Give dicts of an inherited config no ``_scope_='lm4ve'``: their types name scopes."""
    path, scope = wrapped(*args, **kwargs)
    return path, None if scope == 'lm4ve' else scope


@functools.cache
def all_models() -> dict[str, tuple[str, Path]]:
    """Return name -> task and config file, of every metafile."""
    found = {}
    for path in load(MIM_FOLDER / 'model-index.yml')['Import']:
        folder = Path(path).parent.name
        for entry in load(MIM_FOLDER / path)['Models']:
            task = 'rooms' if entry['Name'].startswith('sqa3d') else _TASKS.get(folder, folder)
            found[entry['Name']] = (task, MIM_FOLDER / entry['Config'])
    return found


def find_config(name: str | Path) -> Path:
    """Return the file of a config: of a model's name, below ``lm4ve::``, or any other path."""
    if str(name).startswith('lm4ve::'):
        return MIM_FOLDER / 'configs' / str(name).removeprefix('lm4ve::')
    is_name = not Path(name).suffix and str(name) in all_models()
    return all_models()[str(name)][1] if is_name else Path(name)
