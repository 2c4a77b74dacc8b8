"""What ``lm4ve ablate`` and ``lm4ve try`` share: where the jobs of a study run."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.logging import MessageHub

from lm4ve.errors import UserError, check, listing, require
from lm4ve.runner.error_boundary import AFTER_STOP
from lm4ve.study.pool import Pool
from lm4ve.study.run_job import run_job
from lm4ve.study.store import Store


def build_pool(
    store: Store,
    args: argparse.Namespace,
    preload: Sequence[str],
    per_job: int = 1,
) -> Pool:
    """Return what runs the jobs of a study, on this machine or by Slurm.

    Args:
        store (Store): Holds their results.
        args (argparse.Namespace): The flags.
        preload (Sequence[str]): Modules that jobs need.
        per_job (int): Processes of a job.

    Raises:
        UserError: There are too few devices, a flag is of the other executor, or an
            option of sbatch is not NAME=VALUE.
    """
    gpus = [name for name in args.gpus.split(',') if name]
    shared = (store, args.workers, args.threads, gpus, per_job, preload)
    if args.executor == 'local':
        if gpus or per_job > 1:
            needed = args.workers * per_job
            check('the number of devices in --gpus', len(gpus), least=needed)
        return Pool(*shared)
    if gpus:
        raise UserError(
            '--gpus is for this machine. For Slurm: --slurm gpus_per_node=1.'
        )
    check('--workers with --executor slurm', args.workers, least=1)
    from lm4ve.study.slurm import SlurmPool

    options = {}
    for word in args.slurm:
        name, separator, value = word.partition('=')
        require(
            separator,
            f"--slurm '{word}' is not NAME=VALUE. Fix: for example time=120.",
        )
        options[name] = value
    return SlurmPool(*shared, options)


def run_only(stores: Iterable[Path], keys: Sequence[str]) -> None:
    """Run jobs in this process whose specifications lie in stores.

    Args:
        stores (Iterable[Path]): The folders of the stores.
        keys (Sequence[str]): The jobs' keys.

    Raises:
        UserError: A job is in none of them.
    """
    folders = [store / key for store in stores for key in keys]
    jobs = [folder for folder in folders if folder.is_dir()]
    present = [job.name for job in jobs]
    unknown = [f"'{key}'" for key in keys if key not in present]
    require(
        not unknown,
        f'--only: no stored study has the job {listing(unknown)}. Fix: the keys are the '
        'names of the folders below jobs.',
    )
    for job in jobs:
        run_job(job)


def say_after_stop(folder: Path) -> None:
    """Let this command, if a signal stops it, say how to go on.

    Args:
        folder (Path): Where it stores what is done.
    """
    text = f"The same command goes on from what is stored in '{folder}'."
    MessageHub.get_current_instance().update_info(AFTER_STOP, text)
