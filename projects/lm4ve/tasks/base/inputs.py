"""Sends a user's files through the test pipeline of a config.

The pipeline is the config's own, changed only where it begins with something else than a file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS, Registry

from lm4ve.errors import UserError, check
from lm4ve.tasks.base.analysis import safe_name, tested_dataset, tested_loader
from lm4ve.tasks.base.task import Task, all_tasks, task_of_config


class Given(NamedTuple):
    """One sample: its name and the output of the pipeline."""

    name: str
    data: dict[str, Any]


def registered(registry: Registry, name: str | type[Any]) -> Any:
    """Return the object of a config's ``type``; ``get`` alone does not search the scope."""
    if not isinstance(name, str):
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


def collate(cfg: Config, samples: Sequence[dict[str, Any]]) -> Any:
    """Make a batch as the config's test data loader does."""
    options = dict(tested_loader(cfg).get('collate_fn') or {})
    kind = options.pop('type', 'default_collate')
    if kind == 'default_collate':
        # Lists: pictures may differ in size.
        return pseudo_collate(list(samples))
    return registered(FUNCTIONS, kind)(list(samples), **options)


def samples_of_files(cfg: Config, files: Sequence[str | Path], **options: Any) -> list[Given]:
    """Read files as the config's task needs them, all at once; see :func:`each_sample`."""
    return list(each_sample(cfg, files, **options))


def each_sample(cfg: Config, files: Sequence[str | Path], **options: Any) -> Iterator[Given]:
    """Check all files, then yield them one by one through the config's test pipeline.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        files (Sequence[str]): Files of the kinds that the task declares.
        **options: Some of :attr:`lm4ve.tasks.Task.input_options`, for example ``map_dir``; None
            counts as not given.

    Raises:
        UserError: A file is missing, unreadable, or of another task, or the task has no such
            option.
    """
    pipeline = tested_dataset(cfg).pipeline
    task = task_of_config(cfg)
    options = {k: v for k, v in options.items() if v is not None}
    paths = [Path(f) for f in files]
    for path in paths:
        _check_file(path, task)
    for name in options:
        check(f'An option of {task.input_noun}', name, choices=task.input_options)
    read = task.analysis.read_input
    # Files of several folders may share a name.
    stems = [safe_name(p.stem) for p in paths]
    names = [s if stems.count(s) == 1 else f'{i}_{s}' for i, s in enumerate(stems)]
    return (
        Given(name, read(cfg, path, [dict(t) for t in pipeline], **options))
        for name, path in zip(names, paths, strict=True)
    )


def _check_file(path: Path, task: Task) -> None:
    """Refuse a file that does not exist, or that the task does not read."""
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(f"'{path}' does not exist.")
    if not (task.takes_folders if path.is_dir() else suffix in task.input_suffixes):
        nouns = [t.input_noun for t in all_tasks() if suffix in t.input_suffixes]
        found = 'a folder' if path.is_dir() else (*nouns, 'of another kind')[0]
        endings = ', '.join(task.input_suffixes)
        raise UserError(f"'{path}' is {found}; the config takes {task.input_noun}: {endings}.")
