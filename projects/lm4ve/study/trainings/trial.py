"""Builds what the variants of a grid train, before the first of these trainings starts.

A misspelled argument is an error when its class is built: in a grid after hours of other
variants. So each variant's model, optimizer and hooks are built once at the start. Its
data are not, which may be terabytes, nor its schedules, which count the data's batches.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, init_default_scope
from mmengine.visualization import Visualizer
from torch import nn

from lm4ve import compat
from lm4ve.errors import StorageError, UserError
from lm4ve.files import is_storage_error
from lm4ve.runner.accumulation import is_auto
from lm4ve.runner.error_lines import describe
from lm4ve.study.job import Job
from lm4ve.study.trainings.study import GridStudy
from lm4ve.study.trainings.training import training_config
from lm4ve.tasks.base.building import build_model


def try_variants(study: GridStudy) -> None:
    """Build the first training of each variant of a study that has no result yet.

    Raises:
        UserError: One cannot be built; the message names the variant.
        StorageError: Storage did not give one of its files.
    """
    compat.activate()
    for job in first_jobs(study):
        try:
            # Nothing is written to this folder.
            cfg = training_config(job.spec, job.key, Path('work_dirs/trial'))
            _build(cfg)
        except Exception as e:
            message = f"variant '{job.variant}': {describe(e)}"
            if is_storage_error(e):
                raise StorageError(message) from e
            raise UserError(message) from e


def first_jobs(study: GridStudy) -> list[Job]:
    """Return the first known job of each variant of which no job has a result."""
    jobs = [*study.tuning(), *study.draws(), *study.tests()]
    started = {job.variant for job, _ in study.store.done(jobs)}
    first: dict[str, Job] = {}
    for job in jobs:
        if job.variant not in started:
            first.setdefault(job.variant, job)
    return list(first.values())


def _build(cfg: Config) -> None:
    """Build model, optimizer and hooks of a training, on the CPU."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model, _ = build_model(cfg)
    # Hooks of the hosts ask for the current visualizer when they are built.
    Visualizer.get_instance('trial')
    default_hooks = cfg.get('default_hooks') or {}
    custom_hooks = cfg.get('custom_hooks') or []
    for hook in [*default_hooks.values(), *custom_hooks]:
        _build_hook(hook)
    _build_optimizer(cfg, model)


def _build_optimizer(cfg: Config, model: nn.Module) -> None:
    """Build the optimizer of a training, if MMEngine's plain runner has one."""
    if cfg.get('runner_type', 'Runner') != 'Runner':
        # Another runner's optimizer is one of its strategy, which needs processes.
        return
    wrapper: Any = cfg.get('optim_wrapper')
    if not isinstance(wrapper, Mapping) or 'optimizer' not in wrapper:
        return
    settings = dict(wrapper)
    if is_auto(cfg):
        settings.pop('accumulative_counts')
    build_optim_wrapper(model, settings)


def _build_hook(hook: Any) -> None:
    """Build a hook from its config; None switches one off."""
    if isinstance(hook, Mapping):
        # The runner reads the priority.
        HOOKS.build({name: hook[name] for name in hook if name != 'priority'})
