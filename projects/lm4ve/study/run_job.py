"""Runs jobs whose specifications lie in a store: the entry of every process of a study.

    python -m lm4ve.study.run_job FOLDER KEY ... --launcher pytorch

The processes of a pool and the tasks of a cluster are such commands; ``lm4ve ablate`` and
``lm4ve try`` run a job here with ``--only KEY``.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from lm4ve.files import sole_use
from lm4ve.runner.command_line import run_tool
from lm4ve.runner.process_rank import is_first_process
from lm4ve.study.job import KINDS
from lm4ve.study.store import (
    LOG,
    lock_of,
    read_result,
    read_spec,
    write_result,
)


def run_job(folder: Path, launcher: str = 'none') -> None:
    """Run the job of a folder and write its result, unless it is there.

    The first process of a job holds its lock, so that two commands or two tasks of a
    cluster never run one job at a time.

    Args:
        folder (Path): The job's folder, named by its key.
        launcher (str): 'pytorch' if a job has several processes, to which torchrun or
            submitit has given their ranks; else 'none'.

    Raises:
        UserError: There is no job in the folder, or the job cannot be run.
    """
    is_first = _is_first(launcher)
    lock: Any = contextlib.nullcontext()
    if is_first:
        lock = sole_use(lock_of(folder), wait=math.inf)
    with lock:
        if read_result(folder) is not None:
            print(f'{folder} has a result already.')
            return
        kind, spec = read_spec(folder)
        module = import_module(KINDS[kind].module)
        result = module.run(spec, folder.name, folder, launcher)
        if is_first:
            write_result(result, folder)
            module.tidy(spec, folder)


def run_jobs_logged(
    folders: Sequence[Path], threads: int, launcher: str = 'none'
) -> None:
    """Run jobs one after another as if this process were their command.

    The first process of a job appends what it prints to the job's log. An error ends the
    process, with a message that a user can mend.

    Args:
        folders (Sequence[Path]): The jobs' folders.
        threads (int): CPU threads of torch.
        launcher (str): See :func:`run_job`.
    """
    torch.set_num_threads(threads)
    sys.argv = ['run_job', *(str(folder) for folder in folders)]

    def run_all() -> None:
        for folder in folders:
            if _is_first(launcher):
                _print_into(folder / LOG)
            run_job(folder, launcher)

    run_tool(run_all)


def _print_into(log: Path) -> None:
    """Let this process append what it prints to a file."""
    sys.stdout.flush()
    with open(log, 'ab') as file:
        os.dup2(file.fileno(), 1)  # stdout, also of libraries in C
        os.dup2(file.fileno(), 2)  # stderr


def _is_first(launcher: str) -> bool:
    """Return whether this is the first process of a job.

    Without a launcher it is, also where somebody's own tasks run a job each.
    """
    return launcher == 'none' or is_first_process()


def end_with_parent() -> None:
    """Kill this process and its group as soon as the command that started it has ended.

    A thread looks four times a second.
    """
    # A process of the fork server is the server's child; `parent_process` is the command
    # that had it started.
    command = multiprocessing.parent_process()
    parent = os.getppid()

    def has_parent() -> bool:
        if command is not None:
            return command.is_alive()
        return os.getppid() == parent

    def watch() -> None:
        while has_parent():
            time.sleep(0.25)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the jobs that the command line names; end with the process that started this."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('keys', nargs='+')
    parser.add_argument('--launcher', choices=['none', 'pytorch'], default='none')
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    end_with_parent()
    folders = [args.folder / key for key in args.keys]
    run_jobs_logged(folders, args.threads, args.launcher)


if __name__ == '__main__':
    main()
