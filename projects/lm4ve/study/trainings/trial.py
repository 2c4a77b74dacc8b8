"""Builds what the variants of a grid train, before the first of these trainings starts.

A misspelled argument is an error when its class is built: in a grid after hours of other
variants. So each variant is built once at the start, but for its data and for schedules,
which count the data's batches.
"""

import gc
import multiprocessing
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm4ve.errors import UserError
from lm4ve.runner.building import find_built_field
from lm4ve.runner.runner import build_runner
from lm4ve.study.job import Job
from lm4ve.study.trainings.study import GridStudy
from lm4ve.study.trainings.training import training_config


def try_variants(study: GridStudy) -> None:
    """Build the first training of each variant of a study that has no result yet.

    They are built one after the other in a process of their own, which frees the memory
    of models and GPU.

    Raises:
        UserError: One cannot be built; the message names the variant.
    """
    jobs = first_jobs(study)
    if not jobs:
        return
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        for job in jobs:
            try:
                pool.apply(build_training, (job.spec, job.key))
            except UserError as e:
                raise UserError(f"variant '{job.variant}': {e}") from e


def first_jobs(study: GridStudy) -> list[Job]:
    """Return the first known job of each variant of which no job has a result."""
    jobs = [*study.tuning(), *study.draws(), *study.tests()]
    started = {job.variant for job, _ in study.store.done(jobs)}
    first: dict[str, Job] = {}
    for job in jobs:
        if job.variant not in started:
            first.setdefault(job.variant, job)
    return list(first.values())


def build_training(spec: Mapping[str, Any], key: str) -> None:
    """Build model, hooks and optimizer of a training; read no data.

    Args:
        spec (Mapping): The specification, of
            :func:`lm4ve.study.trainings.training.training_job`.
        key (str): The job's key.

    Raises:
        UserError: One cannot be built; another library's error is in its message.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            _build(spec, key, Path(folder))
    except UserError:
        raise
    except Exception as e:
        field = find_built_field(e)
        place = '' if field is None else f'{field}: '
        words = ' '.join(str(e).split())
        raise UserError(f'{place}{type(e).__name__}: {words}') from e
    finally:
        gc.collect()


def _build(spec: Mapping[str, Any], key: str, folder: Path) -> None:
    """See :func:`build_training`; what is written goes to a folder."""
    cfg = training_config(spec, key, folder)
    cfg.log_level = 'ERROR'
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = None
    runner = build_runner(cfg)
    runner.build_optim_wrapper(runner.optim_wrapper)
