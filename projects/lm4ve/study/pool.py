"""Runs the jobs of a study that have no result yet, in processes of this machine.

A small job takes a second, and importing everything takes five. So one process imports
once and forks into jobs (the standard library's fork server). With GPUs a job is a
command of its own: torch and MMEngine ask for GPUs when they are imported; after that
torch refuses CUDA in a forked process, and ``CUDA_VISIBLE_DEVICES`` comes too late.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch

from lm4ve.errors import UserError
from lm4ve.files import find_write_problem
from lm4ve.runner.same_data import VERSIONS, changed_versions
from lm4ve.study.job import KINDS, Job
from lm4ve.study.progress import Progress
from lm4ve.study.run_job import end_with_parent, run_job, run_jobs_logged
from lm4ve.study.store import LOG, Result, Store

#: Seconds that a job has to end after SIGTERM.
GRACE = 5.0
#: Seconds between two looks at the results of running processes.
INTERVAL = 0.5
#: A process gets at most this part of a worker's share of the small jobs that are left.
_SHARES = 4

_FORKS = multiprocessing.get_context('forkserver')

#: Yields each job when it ends, with its result or its failure.
Ended = Generator[tuple[Job, 'Result | Failure'], None, None]


class Failure(NamedTuple):
    """A job that gave no result, with the log that holds the reason."""

    job: Job
    log: Path
    reason: str


@dataclass
class Pool:
    """A number of workers, each with a share of this machine.

    A job that fails does not stop the others.

    Args:
        store (Store): Locked.
        workers (int): Processes at a time; 0: small jobs run in this process.
        threads (int): CPU threads of each.
        gpus (Sequence[str]): Devices to share out, ``per_job`` for each worker. Without
            any, every job sees all devices.
        per_job (int): Processes of a job, which trains distributed on more than one.
        preload (Sequence[str]): Modules to import before jobs fork. Some may not exist.
    """

    store: Store
    workers: int = 1
    threads: int = 1
    gpus: Sequence[str] = ()
    per_job: int = 1
    preload: Sequence[str] = ()

    def run(
        self,
        jobs: Iterable[Job],
        progress: Progress,
        describe: Callable[[Result], str] | None = None,
    ) -> list[Failure]:
        """Run the jobs that have no result yet, costly ones first.

        Args:
            jobs (Iterable[Job]): The jobs; those of one key are run once.
            progress (Progress): Counts them.
            describe (Callable, optional): Turns a result into a few words, which are
                printed with each job.

        Returns:
            list[Failure]: The failures, in the order in which they ended.
        """
        todo = []
        finished = []
        for job in {job.key: job for job in jobs}.values():
            result = self.store.result(job)
            if result is None:
                todo.append(job)
            else:
                finished.append(result)
                progress.skip(job.variant)
        _warn_of_other_pixels(finished, progress)
        if not todo:
            return []
        todo.sort(key=lambda job: -job.cost)

        failures = []
        with contextlib.closing(self._run(todo)) as ended:
            for job, outcome in ended:
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                    self.store.note_failure(job, outcome.reason)
                    progress.say(f'{job}: {outcome.reason}')
                    continue
                progress.finish(job.variant, outcome.seconds)
                if describe is not None:
                    progress.say(f'{job}: {describe(outcome)}')
        progress.tell()
        return failures

    def outcome(self, job: Job, ending: str) -> Result | Failure:
        """Return the result of an ended job, or its failure if it has none.

        The failure's reason is the last line of the job's log. If nothing can be written
        into its folder, the log lacks its end, and that problem is the reason.

        Args:
            job (Job): The job.
            ending (str): How it ended, which the reason begins with.
        """
        result = self.store.result(job)
        if result is not None:
            return result
        log = self.store.folder_of(job) / LOG
        problem = find_write_problem(log.parent)
        if problem:
            return Failure(
                job, log, f"{ending}: '{log.parent}' cannot be written: {problem}"
            )
        return Failure(job, log, f'{ending}: {_last_line(log)}')

    # ----------------------------------------------------------------------- processes
    def _run(self, todo: list[Job]) -> Ended:
        """Run jobs; yield each when it ends."""
        if self.workers == 0:
            for job in todo:
                self.store.prepare(job)
                run_job(self.store.folder_of(job))
                yield job, self.outcome(job, 'ended')
            return
        # The libraries read these when the fork server loads them.
        for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
            os.environ[name] = str(self.threads)
        if not self._needs_commands:
            _FORKS.set_forkserver_preload(['lm4ve.study.run_job', *self.preload])
        queue = list(todo)
        free = list(range(self.workers))
        # The jobs that each process still has, and its worker.
        running: dict[BaseProcess, tuple[list[Job], int]] = {}
        try:
            while queue or running:
                while queue and free:
                    share = self._take_share(queue)
                    worker = free.pop(0)
                    running[self._start(share, worker)] = (share, worker)
                wait([process.sentinel for process in running], INTERVAL)
                for share, _ in running.values():
                    yield from self._finished(share)
                ended = [p for p in running if p.exitcode is not None]
                for process in ended:
                    share, worker = running.pop(process)
                    free.append(worker)
                    ending = f'failed (exit code {process.exitcode})'
                    yield from self._end_share(share, ending, queue)
        finally:
            _stop(running)

    @property
    def _needs_commands(self) -> bool:
        """Whether a job needs a command of its own: for a GPU, or for several processes."""
        return bool(self.gpus) or torch.cuda.is_available() or self.per_job > 1

    def _take_share(self, queue: list[Job]) -> list[Job]:
        """Take the next jobs of one process from a queue: one training, or several heads.

        Shares get smaller towards the end, so that no worker is alone for long. A command
        takes seconds to import everything, so that there are few of them.
        """
        count = 1
        if not KINDS[queue[0].kind].own_process:
            shares = 1 if self._needs_commands else _SHARES
            count = math.ceil(len(queue) / (shares * self.workers))
        share = queue[:count]
        del queue[:count]
        return share

    def _finished(self, share: list[Job]) -> Ended:
        """Yield the jobs of a share that have a result by now, and take them out of it."""
        while share:
            result = self.store.result(share[0])
            if result is None:
                return
            yield share.pop(0), result

    def _end_share(self, share: list[Job], ending: str, queue: list[Job]) -> Ended:
        """Yield the jobs of a process that has ended; what it did not come to is queued."""
        yield from self._finished(share)
        if share:
            failed = share.pop(0)
            queue[:0] = share
            yield failed, self.outcome(failed, ending)

    def _start(self, share: Sequence[Job], worker: int) -> BaseProcess:
        """Start a process for jobs, each of which has a folder of its own.

        Args:
            share (Sequence[Job]): The jobs.
            worker (int): The worker's number, from 0, which decides the devices.
        """
        for job in share:
            self.store.prepare(job)
        folders = [self.store.folder_of(job).resolve() for job in share]
        # The whole environment, since the server keeps that of its own start.
        env = dict(os.environ)
        if self.gpus:
            own = self.gpus[worker * self.per_job : (worker + 1) * self.per_job]
            env['CUDA_VISIBLE_DEVICES'] = ','.join(own)
        if self._needs_commands:
            run = partial(_run_command, folders, env, self.threads, self.per_job)
        else:
            run = partial(_run_here, folders, env, self.threads)
        process = _FORKS.Process(target=run)
        process.start()
        return process


def require_success(failures: Sequence[Failure]) -> None:
    """Refuse to call a study with failed jobs a success.

    Raises:
        UserError: It names the jobs, their errors and logs.
    """
    if not failures:
        return
    lines = [f'  {f.job}: {f.reason}\n    {f.log}' for f in failures]
    raise UserError(
        f'{len(failures)} job(s) failed; the same command tries them again:\n'
        + '\n'.join(lines)
    )


def _warn_of_other_pixels(results: Iterable[Result], progress: Progress) -> None:
    """Warn where finished jobs read pictures by other versions of libraries."""
    changes = set()
    for result in results:
        changed = changed_versions(result.facts.get(VERSIONS))
        if changed:
            changes.add(changed)
    for changed in sorted(changes):
        progress.say(f'Warning: finished jobs saw the pixels of {changed}.')


def _last_line(log: Path) -> str:
    """Return the last line of a log, where an error is."""
    if not log.exists():
        return 'no output'
    lines = log.read_text(errors='replace').strip().splitlines()
    if not lines:
        return 'no output'
    return lines[-1]


def _run_here(folders: Sequence[Path], env: dict[str, str], threads: int) -> None:
    """Run jobs in this process of the fork server.

    Args:
        folders (Sequence[Path]): The jobs' folders.
        env (dict[str, str]): The environment of the command.
        threads (int): CPU threads of torch.
    """
    _leave_terminal()
    os.environ.update(env)
    run_jobs_logged(folders, threads)


def job_words(folders: Sequence[Path], threads: int, launcher: str) -> list[str]:
    """Return the words of the command that runs jobs of one store, after ``python``.

    Args:
        folders (Sequence[Path]): The jobs' folders.
        threads (int): CPU threads of each process.
        launcher (str): See :func:`lm4ve.study.run_job.run_job`.
    """
    keys = [folder.name for folder in folders]
    options = [f'--threads={threads}', f'--launcher={launcher}']
    return ['-m', 'lm4ve.study.run_job', str(folders[0].parent), *keys, *options]


def _run_command(
    folders: Sequence[Path], env: dict[str, str], threads: int, processes: int
) -> None:
    """Run jobs as a command, by torchrun if a job has several processes; wait for it.

    Args:
        folders (Sequence[Path]): The jobs' folders.
        env (dict[str, str]): The environment of the command, and the jobs' devices.
        threads (int): CPU threads of each process.
        processes (int): Processes of a job.
    """
    _leave_terminal()
    command = [sys.executable]
    launcher = 'none'
    if processes > 1:
        command += ['-m', 'torch.distributed.run', '--standalone']
        command.append(f'--nproc-per-node={processes}')
        launcher = 'pytorch'
    command += job_words(folders, threads, launcher)
    with open(folders[0] / LOG, 'ab') as log:
        code = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, env=env)
    sys.exit(code)


def _leave_terminal() -> None:
    """Give this process a session of its own, which ends with the command.

    The terminal sends Ctrl-C to the command alone, which then ends its jobs.
    """
    os.setsid()
    end_with_parent()


def _stop(processes: Iterable[BaseProcess]) -> None:
    """Ask processes and everything that they started to end; kill those that do not.

    Args:
        processes (Iterable[BaseProcess]): Leaders of process groups.
    """
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.pid is not None and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal_number)
        end = time.monotonic() + GRACE
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
