"""What ``lm4ve ablate`` and ``lm4ve try`` share: where the jobs of a study run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import MessageHub

from lm4ve.errors import UserError, check, require
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


def run_only(args: argparse.Namespace, stores: Sequence[Path]) -> None:
    """Run the jobs of ``--only`` in this process; their specifications lie in stores.

    Args:
        args (argparse.Namespace): The flags.
        stores (Sequence[Path]): The folders that may hold them.

    Raises:
        UserError: There is no such job.
    """
    torch.set_num_threads(args.threads)
    for key in args.only:
        folders = [store / key for store in stores if (store / key).is_dir()]
        require(folders, f"--only: there is no job '{key}' here.")
        run_job(folders[0])


def say_after_stop(folder: Path) -> None:
    """Let this command, if a signal stops it, say how to go on.

    Args:
        folder (Path): Where it stores what is done.
    """
    text = f"The same command goes on from what is stored in '{folder}'."
    MessageHub.get_current_instance().update_info(AFTER_STOP, text)
