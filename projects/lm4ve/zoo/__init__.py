"""Carry the configs (``.mim/``), so that other projects, commands and mmpretrain find them.

``_base_ = 'lm4ve::lm4ve/vit-s_llama_in1k.py'`` reads a file below ``.mim/configs``, and
``mmpretrain.get_model('vit-s_llama_in1k')`` a model that the image metafile lists. The
metafiles of the other tasks are not registered there: mmpretrain cannot build their
models.
"""

import fnmatch
import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import wrapt
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import load

from lm4ve.errors import CheckpointError, UserError, check, listing
from lm4ve.zoo.removed_controls import REMOVED_CONTROLS

#: The folder that holds ``configs`` and ``model-index.yml``.
MIM_FOLDER = Path(__file__).parent / '.mim'
#: The folder of trained weights, ``<name>.safetensors``; ``tools/make_zoo.py`` makes
#: them.
WEIGHTS = Path(__file__).parent / 'weights'
#: The value of a checkpoint that stands for the config's own file there.
PRETRAINED = 'pretrained'
#: The folder of the image task's configs; those of other tasks have the task's name.
_IMAGE_FOLDER = 'lm4ve'
#: The folder that a task's configs had in lm4ve -> the project beside lm4ve that has the
#: task now. lm4ve imports none of them: a project's configs do.
PROJECTS = {'medical': 'llm4seg'}
#: The packages whose classes are ours.
PACKAGES = ('lm4ve', *PROJECTS.values())
#: How paths began before folders were renamed -> how they begin now. Configs of users
#: inherit from the old ones.
_RENAMED = {
    'lm4ve::vision_language/meter': 'lm4ve::vqa/meter',
    'lm4ve::vision_language/sqa3d': 'lm4ve::rooms/sqa3d',
}

# `_base_ = 'lm4ve::...'` looks for `.mim/configs` in the folder of a *module*
# when no distribution has this name. The subpackage is found in an editable
# install and in a wheel; the name `lm4ve` alone is not (the distribution's
# location says nothing of where an editable install keeps its code).
MODULE2PACKAGE.setdefault('lm4ve', 'lm4ve.zoo')


@wrapt.patch_function_wrapper(Config, '_get_cfg_path')
def _find_inherited(
    wrapped: Any, _: Any, args: Any, kwargs: Any
) -> tuple[str, str | None]:
    """Replace MMEngine's look-up of an inherited config, in three respects.

    A path below ``lm4ve::`` from before its folder was renamed, or became a project of
    its own, is found at its new place. A control that was removed is an error that says
    what to inherit. And the dicts of our configs get no ``_scope_='lm4ve'``, which
    MMEngine adds to those of other projects: the types in our configs name their scopes
    themselves.

    Args:
        wrapped (Callable): MMEngine's function.
        args (tuple): Its arguments: the inherited path, and the file that inherits.
        kwargs (dict): Empty; MMEngine passes both by position.

    Returns:
        tuple[str, str | None]: The file, and the scope of its dicts.

    Raises:
        UserError: The path is that of a removed control, or of a project that is not
            importable.
    """
    cfg_path, filename = args
    name = Path(cfg_path).stem
    if cfg_path.startswith('lm4ve::') and name in REMOVED_CONTROLS:
        parent, control = REMOVED_CONTROLS[name]
        raise UserError(
            f"_base_ '{cfg_path}' is '{parent}' and an option. Fix: inherit that config, and set "
            f'{control}.'
        )
    if cfg_path.startswith('lm4ve::'):
        config = _config_of_project(cfg_path.removeprefix('lm4ve::'))
        if config is not None:
            return str(config), None
    path, scope = wrapped(current_path(cfg_path), filename)
    if scope == 'lm4ve':
        scope = None
    return path, scope


def current_path(path: str) -> str:
    """Return a config's path with the present name of its folder, if that was renamed.

    Args:
        path (str): A path as configs inherit it. One that begins with none of
            :data:`_RENAMED` is returned as it is.
    """
    for old, new in _RENAMED.items():
        if path.startswith(old):
            return path.replace(old, new, 1)
    return path


@functools.cache
def all_models() -> dict[str, tuple[str, Path]]:
    """Return the models of all metafiles: name -> task and config file.

    Those of a project are among them if it is importable. The files are read once;
    callers do not change the dict.
    """
    models = {}
    for path in load(MIM_FOLDER / 'model-index.yml')['Import']:
        folder = Path(path).parent.name
        task = 'image' if folder == _IMAGE_FOLDER else folder
        for entry in load(MIM_FOLDER / path)['Models']:
            models[entry['Name']] = (task, MIM_FOLDER / entry['Config'])
    for task, project in PROJECTS.items():
        if find_spec(project) is None:
            continue
        configs = configs_of_project(task)
        for entry in load(configs / 'metafile.yml')['Models']:
            models[entry['Name']] = (task, configs / Path(entry['Config']).name)
    return models


def configs_of_project(task: str) -> Path:
    """Return the folder of the configs of a task that a project has.

    Args:
        task (str): A key of :data:`PROJECTS`.

    Raises:
        UserError: The project is not importable.
    """
    project = PROJECTS[task]
    spec = find_spec(project)
    if spec is None or spec.origin is None:
        raise UserError(
            f"The configs of '{task}' are in the project '{project}', which is not importable. "
            'Fix: clone the repository of lm4ve, and put its folder projects on PYTHONPATH.'
        )
    return Path(spec.origin).parent / 'configs'


def _config_of_project(path: str) -> Path | None:
    """Return the file of a project's config.

    Args:
        path (str): The path that the config had below ``configs``, such as
            'medical/cmunext_none_busi.py', with or without its ending, or that of a
            piece, such as '_base_/medical/cmunext.py'.

    Returns:
        Path | None: None if the path is that of no project.

    Raises:
        UserError: The project is not importable.
    """
    for task in PROJECTS:
        for below in ('', '_base_/'):
            start = f'{below}{task}/'
            if path.startswith(start):
                name = path.removeprefix(start).removesuffix('.py')
                return configs_of_project(task) / f'{below}{name}.py'
    return None


def find_config(name: str | Path) -> Path:
    """Return the file of a config.

    Args:
        name (str | Path): The name of a model of the zoo, a path below ``lm4ve::``, a
            path such as 'medical/cmunext_none_busi' of a project, or any other path,
            which is returned as it is and need not exist.

    Raises:
        UserError: The path is that of a project that is not importable.
    """
    text = str(name)
    if text.startswith('lm4ve::'):
        below = current_path(text).removeprefix('lm4ve::')
        config = _config_of_project(below)
        return config or MIM_FOLDER / 'configs' / below
    path = Path(name)
    if not path.suffix and text in all_models():
        _, config_of_model = all_models()[text]
        return config_of_model
    if path.is_file():
        return path
    return _config_of_project(path.as_posix()) or path


def list_models(pattern: str | None = None, task: str | None = None) -> list[str]:
    """Return the sorted names of the models with a config in lm4ve.

    Args:
        pattern (str, optional): With ``*`` and ``?``, for example ``'*llama*'``.
        task (str, optional): For example 'motion' or 'image'.

    Raises:
        UserError: There is no such task, or its project is not importable.
    """
    models = all_models()
    if task in PROJECTS:
        configs_of_project(task)
    if task is not None:
        tasks = {own_task for own_task, _ in models.values()}
        check('task', task, choices=sorted(tasks))
    names = []
    for name, (own_task, _) in models.items():
        if task is None or own_task == task:
            names.append(name)
    if pattern is not None:
        names = fnmatch.filter(names, pattern)
    return sorted(names)


def find_checkpoint(checkpoint: Any, config: str | Path | None) -> Any:
    """Return the checkpoint that a user names; ``'pretrained'`` becomes the weights' file.

    A file has to exist, so that the error comes before anything is built. An address
    (``https://``) and None are returned as they are.

    Args:
        checkpoint (str | Path | None): A file, an address, or ``'pretrained'`` for the
            trained weights that come with the config.
        config (str | Path, optional): The config's file, as in ``Config.filename``.

    Raises:
        CheckpointError: There is no such file, or no weights of that config.
    """
    if checkpoint == PRETRAINED:
        return _find_weights(config)
    is_address = '://' in str(checkpoint)
    if checkpoint is not None and not is_address:
        _require_file(Path(checkpoint))
    return checkpoint


def _find_weights(config: str | Path | None) -> Path:
    """Return the file of the trained weights that come with a config.

    Args:
        config (str | Path | None): The config's file. A model's name is not enough:
            :func:`find_config` returns its file.

    Raises:
        CheckpointError: No weights come with it; the message names the configs that
            have some.
    """
    if config:
        name = Path(config).stem
        weights = WEIGHTS / f'{name}.safetensors'
        if name in all_models() and weights.is_file():
            _, config_of_ours = all_models()[name]
            # A user's own config may have the name of one of ours.
            if config_of_ours.resolve() == Path(config).resolve():
                return weights
    names = sorted(path.stem for path in WEIGHTS.glob('*.safetensors'))
    raise CheckpointError(
        f"No weights come with the config '{config}', but with: {listing(names, 20)}."
    )


def _require_file(path: Path) -> None:
    """Refuse a checkpoint that is a folder or does not exist.

    Raises:
        CheckpointError: For a folder, the message names the checkpoints in it.
    """
    if path.is_dir():
        names = [str(path / p.name) for p in sorted(path.glob('*.pth'))]
        fix = f'one of its files: {listing(names)}' if names else 'a file'
        raise CheckpointError(f"The checkpoint '{path}' is a folder. Fix: name {fix}.")
    if not path.exists():
        raise CheckpointError(f"The checkpoint '{path}' does not exist.")
