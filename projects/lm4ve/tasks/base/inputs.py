"""Files that somebody gives a model, through the test pipeline of its config.

Any file of a task goes through the config's own test pipeline, changed only where
that pipeline begins with something else than a file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS, Registry

from lm4ve.errors import UserError
from lm4ve.tasks.base.analysis import safe_name, tested_dataset, tested_loader
from lm4ve.tasks.base.table import all_tasks, task_of_config
from lm4ve.tasks.base.task import Task


class Given(NamedTuple):
    """One sample: its name and what the pipeline made of it."""

    name: str
    data: dict[str, Any]


def registered(registry: Registry, name: str | type[Any]) -> Any:
    """Return what a config's ``type`` names; `get` alone does not look into its scope."""
    if not isinstance(name, str):
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


def collate(cfg: Config, samples: Sequence[dict[str, Any]]) -> Any:
    """Make a batch as the config's test data loader does."""
    function = tested_loader(cfg).get('collate_fn')
    if function is None or function['type'] == 'default_collate':
        # Lists: pictures may differ in size.
        return pseudo_collate(list(samples))
    options = {k: v for k, v in function.items() if k != 'type'}
    return registered(FUNCTIONS, function['type'])(list(samples), **options)


def samples_of_files(cfg: Config, files: Sequence[str | Path], **options: Any) -> list[Given]:
    """Read files as the config's task needs them, all at once; see :func:`each_sample`."""
    return list(each_sample(cfg, files, **options))


def each_sample(cfg: Config, files: Sequence[str | Path], **options: Any) -> Iterator[Given]:
    """Look at all files, then read one after another by the config's test pipeline.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
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
    return (
        Given(name, read(cfg, path, [dict(t) for t in pipeline], **options))
        for name, path in zip(_names(paths), paths, strict=True)
    )


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
