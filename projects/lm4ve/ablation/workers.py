"""Executors run the trials of a grid; here on this machine, in :mod:`.slurm` on a cluster.

A small trial trains for a dozen seconds, and importing everything takes five. So one
process imports once and forks into trials (the standard library's fork server).

With GPUs a trial is a command of its own. Torch and MMEngine ask for GPUs when they are
imported; after that torch refuses CUDA in a forked process, and ``CUDA_VISIBLE_DEVICES``
comes too late.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from lm4ve.ablation.grid import Trial
from lm4ve.ablation.identity import fresh_config
from lm4ve.ablation.store import Store
from lm4ve.ablation.trial import end_with_parent, run_logged, write_spec
from lm4ve.files import find_write_problem
from lm4ve.runner.same_data import changed_versions

#: Seconds that a trial has to end after SIGTERM.
GRACE = 5.0
#: Modules below a host's package that register what configs name.
_HOST_MODULES = ('datasets', 'engine', 'evaluation', 'models', 'visualization')

_FORKS = multiprocessing.get_context('forkserver')

#: Yields each trial when it ends, with its failure, or None if it has a result.
Ended = Generator[tuple[Trial, 'Failure | None'], None, None]


class Failure(NamedTuple):
    """A trial that gave no result, with the log that holds the reason."""

    trial: Trial
    log: Path
    reason: str


@dataclass
class Executor:
    """Runs the trials of a grid that have no result yet.

    A trial that fails does not stop the others.

    Args:
        store (Store): Locked.
        count (int): Trials at a time.
        threads (int): CPU threads of each process.
        keep_checkpoints (bool): Keep the last checkpoint of each trial.
        console (Console): Shows the progress, as a bar on a terminal and as lines
            elsewhere.
    """

    store: Store
    count: int = 1
    threads: int = 1
    keep_checkpoints: bool = False
    console: Console = field(default_factory=Console)

    def run(
        self, trials: Iterable[Trial], describe: Callable[[dict], str]
    ) -> list[Failure]:
        """Run the trials that have no result yet.

        Args:
            trials (Iterable[Trial]): The trials; those of one id are run once.
            describe (Callable): Turns a result into a few words for the progress.

        Returns:
            list[Failure]: The failures, in the order in which they ended.
        """
        unique = list({trial.id: trial for trial in trials}.values())
        todo = []
        finished = []
        for trial in unique:
            result = self.store.result(trial)
            if result is None:
                todo.append(trial)
            else:
                finished.append(result)
        self._warn_of_other_pixels(finished)
        if not todo:
            return []

        failures = []
        number = len(finished)
        with contextlib.closing(self._run(todo)) as ended:
            shown = track(
                ended,
                'trials',
                total=len(unique),
                completed=number,
                console=self.console,
                disable=not self.console.is_terminal,
            )
            for trial, failure in shown:
                number += 1
                if failure is None:
                    words = describe(self.store.result(trial) or {})
                else:
                    words = failure.reason
                    failures.append(failure)
                self.say(f'{number}/{len(unique)} {trial}: {words}')
        return failures

    def _warn_of_other_pixels(self, results: Iterable[dict]) -> None:
        """Warn where finished trials read pictures by other versions of libraries."""
        changes = set()
        for result in results:
            changed = changed_versions(result.get('pixel_versions'))
            if changed:
                changes.add(changed)
        for changed in sorted(changes):
            self.say(f'Warning: finished trials saw the pixels of {changed}.')

    def say(self, line: str) -> None:
        """Print a line of progress."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def outcome(self, trial: Trial, ending: str) -> Failure | None:
        """Return None if an ended trial has a result, else its failure.

        The failure's reason is the last line of the trial's log. If nothing can be
        written into its folder, the log lacks its end, and that problem is the reason.

        Args:
            trial (Trial): The trial.
            ending (str): How it ended, which the reason begins with.
        """
        if self.store.result(trial) is not None:
            return None
        log = self.store.folder(trial) / 'log.txt'
        problem = find_write_problem(log.parent)
        if problem:
            return Failure(
                trial, log, f"{ending}: '{log.parent}' cannot be written: {problem}"
            )
        return Failure(trial, log, f'{ending}: {_last_line(log)}')

    def _run(self, todo: list[Trial]) -> Ended:
        """Run trials; yield each when it ends, with its failure if it has no result."""
        raise NotImplementedError


def _last_line(log: Path) -> str:
    """Return the last line of a log, where an error is."""
    if not log.exists():
        return 'no output'
    lines = log.read_text(errors='replace').strip().splitlines()
    if not lines:
        return 'no output'
    return lines[-1]


@dataclass
class Workers(Executor):
    """A number of workers, each with a share of this machine.

    Args:
        gpus (Sequence[str]): Devices to share out, ``store.world_size`` for each
            trial, which trains distributed on more than one. Without any, every trial
            sees all devices.
    """

    gpus: Sequence[str] = ()

    @property
    def has_gpu(self) -> bool:
        """Return whether trials may use a GPU."""
        return bool(self.gpus) or torch.cuda.is_available()

    def _run(self, todo: list[Trial]) -> Ended:
        """Run trials, each in a process that starts when a worker is free."""
        # The libraries read these when the fork server loads them.
        for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
            os.environ[name] = str(self.threads)
        if not self.has_gpu:
            modules = ['lm4ve.ablation.trial', *_host_modules(todo)]
            _FORKS.set_forkserver_preload(modules)
        queue = list(todo)
        free = list(range(self.count))
        running: dict[BaseProcess, tuple[Trial, int]] = {}
        try:
            while queue or running:
                while queue and free:
                    trial = queue.pop(0)
                    worker = free.pop(0)
                    process = self._start(trial, worker)
                    running[process] = (trial, worker)
                wait([process.sentinel for process in running])
                ended = [p for p in running if p.exitcode is not None]
                for process in ended:
                    trial, worker = running.pop(process)
                    free.append(worker)
                    ending = f'failed (exit code {process.exitcode})'
                    yield trial, self.outcome(trial, ending)
        finally:
            _stop(running)

    def _start(self, trial: Trial, worker: int) -> BaseProcess:
        """Start the process of a trial, which has a folder of its own.

        Args:
            trial (Trial): The trial.
            worker (int): The worker's number, from 0, which decides the devices.
        """
        size = self.store.world_size
        folder = self.store.clear(trial)
        spec = write_spec(trial, folder, self.keep_checkpoints, size)
        # The whole environment, since the server keeps that of its own start.
        env = dict(os.environ)
        if self.gpus:
            own = self.gpus[worker * size : (worker + 1) * size]
            env['CUDA_VISIBLE_DEVICES'] = ','.join(own)
        run = partial(_run_here, spec, env, self.threads)
        if self.has_gpu or size > 1:
            run = partial(_run_command, spec, env, size)
        process = _FORKS.Process(target=run)
        process.start()
        return process


def _host_modules(trials: Iterable[Trial]) -> list[str]:
    """Return modules to import before trials fork: those that register their hosts' classes.

    Some may not exist; the fork server passes over them.
    """
    scopes = set()
    for path in {trial.config for trial in trials}:
        scope = fresh_config(path).get('default_scope')
        if scope:
            scopes.add(scope)
    modules = []
    for scope in sorted(scopes):
        modules += [f'{scope}.{module}' for module in _HOST_MODULES]
    return modules


def _run_here(spec: Path, env: dict[str, str], threads: int) -> None:
    """Run a trial in this process of the fork server.

    Args:
        spec (Path): The trial's specification.
        env (dict[str, str]): The environment of the command.
        threads (int): CPU threads of torch.
    """
    _leave_terminal()
    os.environ.update(env)
    run_logged(spec, threads)


def _run_command(spec: Path, env: dict[str, str], processes: int) -> None:
    """Run a trial as a command, by torchrun if it has several processes, and wait for it.

    Args:
        spec (Path): The trial's specification.
        env (dict[str, str]): The environment of the command, and the trial's devices.
        processes (int): Processes of the trial.
    """
    _leave_terminal()
    command = [sys.executable, '-m']
    if processes > 1:
        command += ['torch.distributed.run', '--standalone']
        command += [f'--nproc-per-node={processes}', '-m']
    command += ['lm4ve.ablation.trial', str(spec)]
    if processes > 1:
        command += ['--launcher', 'pytorch']
    with open(spec.with_name('log.txt'), 'wb') as log:
        code = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, env=env)
    sys.exit(code)


def _leave_terminal() -> None:
    """Give this process a session of its own, which ends with the command.

    The terminal sends Ctrl-C to the command alone, which then ends its trials.
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
