"""Loads what the analysis looks at: a config, a checkpoint, and files or indices.

Any file of a task goes through the config's own test pipeline, changed only where
that pipeline begins with something else than a file. Mistakes in an input are reported
before a model is built.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, Registry
from torch import nn

from lm4ve.engine.checkpoint_files import (
    load_partly,
    load_strictly,
    meta_of,
    read_checkpoint,
    select_state,
)
from lm4ve.engine.command_line import add_allow_partial, config_parser
from lm4ve.engine.devices import find_device
from lm4ve.errors import CheckpointError, UserError
from lm4ve.tasks import Task, all_tasks, task_of_config
from lm4ve.tasks.analysis import safe_name, tested_dataset, tested_loader

#: What stands for no checkpoint.
UNTRAINED = ('none', '-')


class Given(NamedTuple):
    """One sample: its name and what the pipeline made of it."""

    name: str
    data: dict


class Loaded(NamedTuple):
    """A model in evaluation mode, and the names of its classes if known."""

    model: nn.Module
    classes: Sequence[str] | None


def tool_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags that the tools of the analysis share."""
    parser = config_parser(description)
    add = parser.add_argument
    add('checkpoint', help="a file, or 'none': untrained")
    points = "where to look; ':input' after a module's name for what goes into it"
    points += '; default: around the block'
    add('--points', nargs='+', default=[], metavar='LABEL=MODULE', help=points)
    add_allow_partial(parser)
    add('--out-dir', help='default: a folder in work_dirs/<config>')
    add('--device', help='default: a GPU if there is one')
    return parser


def _registered(registry: Registry, name: str | type) -> Any:
    """Return what a config's ``type`` names; `get` alone does not look into its scope."""
    if not isinstance(name, str):
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


# ------------------------------------------------------------------------- model
def load_model(
    cfg: Config, checkpoint: str, device: str | None = None, allow_partial: bool = False
) -> Loaded:
    """Build a config's model and load a checkpoint, without executing code of it.

    Args:
        cfg (Config): See :func:`lm4ve.engine.config.read_config`.
        checkpoint (str): A file; 'none' or '-' stand for the weights that training
            with seed 0 would begin with.
        device (str, optional): Default: a GPU if there is one.
        allow_partial (bool): Load what fits of a checkpoint of another model.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or of another model.
        UserError: There is no such device.
    """
    device = find_device(device)
    torch.manual_seed(0)
    settings = cfg.model
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    content = None if checkpoint in UNTRAINED else read_checkpoint(checkpoint)
    model = MODELS.build(settings)
    if content is None:
        _initialize(model)
    else:
        origin = f"'{checkpoint}'"
        load = load_partly if allow_partial else load_strictly
        load(model, select_state(content, origin=origin), origin)
    return Loaded(model.to(device).eval(), _classes(cfg, content or {}))


def _initialize(model: nn.Module) -> None:
    try:
        model.init_weights()
    except FileNotFoundError as e:
        raise CheckpointError(
            f'Training would begin with a file that is not there: {e}. Fix: give '
            'a checkpoint, or take the file out with --cfg-options.'
        ) from e


def _classes(cfg: Config, checkpoint: dict) -> Sequence[str] | None:
    dataset = tested_dataset(cfg)
    meta = meta_of(checkpoint, 'dataset_meta')
    kind = _registered(DATASETS, dataset.type)
    return (
        (dataset.get('metainfo') or {}).get('classes')
        or meta.get('classes')
        or getattr(kind, 'METAINFO', {}).get('classes')
    )


def collate(cfg: Config, samples: Sequence[dict]) -> Any:
    """Make a batch as the config's test data loader does."""
    function = tested_loader(cfg).get('collate_fn')
    if function is None or function['type'] == 'default_collate':
        # Lists: pictures may differ in size.
        return pseudo_collate(list(samples))
    options = {k: v for k, v in function.items() if k != 'type'}
    return _registered(FUNCTIONS, function['type'])(list(samples), **options)


# ----------------------------------------------------------------------- samples
def samples_by_index(cfg: Config, indices: Sequence[int]) -> list[Given]:
    """Take samples of the config's test data set.

    Raises:
        UserError: There is no such sample.
    """
    if not indices:
        return []
    dataset = DATASETS.build(tested_loader(cfg).dataset)
    task = task_of_config(cfg).analysis
    count = len(dataset)
    wrong = [i for i in indices if not 0 <= i < count]
    if wrong:
        raise UserError(
            f'--indices {" ".join(map(str, wrong))}: the test set has '
            f'{count} samples, numbers 0 to {count - 1}. Fix: name these.'
        )
    found = []
    for i in indices:
        data = dataset[i]
        sample = data.get('data_samples', data)
        sample = sample[0] if isinstance(sample, list) else sample
        found.append(Given(f'test_{task.sample_name(sample, i)}', data))
    return found


def samples_of_files(cfg: Config, files: Sequence[str], **options: Any) -> list[Given]:
    """Read files as the config's task needs them, by its test pipeline.

    Args:
        cfg (Config): See :func:`lm4ve.engine.config.read_config`.
        files (Sequence[str]): Files of the kinds that the task declares.
        **options: The given :attr:`lm4ve.tasks.Task.input_options`, for example
            ``map_dir``; None counts as not given.

    Raises:
        UserError: A file is missing, unreadable, or of another task, or the task has
            no such option.
    """
    pipeline = tested_dataset(cfg).pipeline
    task = task_of_config(cfg)
    options = {k: v for k, v in options.items() if v is not None}
    paths = [Path(f) for f in files]
    for path in paths:
        _check_file(path, task)
    for name in options.keys() - task.input_options.keys():
        raise UserError(
            f'--{name.replace("_", "-")} says nothing of {task.input_noun}, which is '
            'what the config takes. Fix: leave it out.'
        )
    read = task.analysis.read_input
    return [
        Given(name, read(cfg, path, [dict(t) for t in pipeline], **options))
        for name, path in zip(_names(paths), paths, strict=True)
    ]


def _names(paths: Sequence[Path]) -> list[str]:
    """Name the paths, with a number where two names are the same."""
    stems = [safe_name(p.stem) for p in paths]
    return [s if stems.count(s) == 1 else f'{i}_{s}' for i, s in enumerate(stems)]


def _check_file(path: Path, task: Task) -> None:
    """Refuse what is not there, or what the task does not read."""
    if not path.exists():
        raise UserError(
            f"'{path}' does not exist. Fix: correct the path, or take "
            'samples of the test set with --indices.'
        )
    suffix = path.suffix.lower()
    if task.takes_folders if path.is_dir() else suffix in task.input_suffixes:
        return
    other = [t.input_noun for t in all_tasks() if suffix in t.input_suffixes]
    found = 'a folder' if path.is_dir() else (*other, 'of an unknown kind')[0]
    folders = ', or a folder of frames' if task.takes_folders else ''
    raise UserError(
        f"'{path}' is {found}; the config takes {task.input_noun}: a file ending in "
        f'{", ".join(task.input_suffixes)}{folders}. Fix: give one.'
    )
