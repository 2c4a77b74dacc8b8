"""Runs trials as processes of their own on a number of workers.

A trial that fails does not stop the others. Stopping the tool stops its trials; finished
trials stay, and the next start goes on from there.

A small trial trains for a dozen seconds, and importing everything takes five: one
process imports once and forks into trials (the standard library's fork server).
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from lm4ve.ablation.fields import fresh_config
from lm4ve.ablation.grid import Trial
from lm4ve.ablation.store import Store
from lm4ve.ablation.trial import OWNER, SCOPES, run_forked, write_spec

Process = Union[multiprocessing.process.BaseProcess, '_Distributed']
#: Seconds that a trial has to end after it was asked to.
GRACE = 5.0


@dataclass(frozen=True)
class Failure:
    """A trial that gave no result, with the file that says why."""

    trial: Trial
    log: Path
    reason: str


@dataclass
class _Running:
    trial: Trial
    process: 'Process'
    worker: int


class Workers:
    """A number of workers, each with a share of the machine.

    Args:
        store (Store): Locked.
        count (int): Trials at a time.
        threads (int): CPU threads of each.
        gpus (Sequence[str]): Devices to share out, ``store.world_size`` for each
            trial, which trains distributed on more than one. Without any, every trial
            sees all devices.
        keep_checkpoints (bool): Keep the last checkpoint of each trial.
        console (Console): Shows the progress, as a bar on a terminal and as lines
            elsewhere.
    """

    def __init__(
        self,
        store: Store,
        count: int = 1,
        threads: int = 1,
        gpus: Sequence[str] = (),
        keep_checkpoints: bool = False,
        console: Console | None = None,
    ) -> None:
        self.store, self.count, self.threads = store, count, threads
        self.gpus = list(gpus)
        self.keep_checkpoints = keep_checkpoints
        self.console = console or Console()

    def run(self, trials: Iterable[Trial], say: Callable[[dict], str]) -> list[Failure]:
        """Run the trials that have no result yet.

        Args:
            trials (Iterable[Trial]): The trials; those of one id are run once.
            say (Callable): Turns a result into a few words for the progress.

        Returns:
            list[Failure]: The failures in the trials' order.
        """
        wanted = list({t.id: t for t in trials}.values())
        todo = [t for t in wanted if self.store.result(t) is None]
        if not wanted:
            return []
        scopes = {fresh_config(c).get('default_scope') for c in {t.config for t in todo}}
        os.environ[SCOPES] = ','.join(sorted(filter(None, scopes)))
        columns = *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()
        shown = self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not shown) as bar:
            done = len(wanted) - len(todo)
            bar.add_task(wanted[0].stage, total=len(wanted), completed=done)
            return self._loop(todo, len(wanted), say, bar)

    def _loop(self, todo: list[Trial], total: int, say: Callable, bar: Progress) -> list[Failure]:
        queue, running, failed = list(todo), [], []
        free = list(range(self.count))
        done = total - len(todo)
        try:
            while queue or running:
                while queue and free:
                    worker = free.pop(0)
                    trial = queue.pop(0)
                    running.append(_Running(trial, self._start(trial, worker), worker))
                time.sleep(0.1)
                for r in [r for r in running if r.process.exitcode is not None]:
                    running.remove(r)
                    free.append(r.worker)
                    done += 1
                    bar.advance(bar.task_ids[0])
                    failure = self._outcome(r)
                    words = failure.reason if failure else say(self.store.result(r.trial))
                    line = f'{done}/{total} {r.trial}: {words}'
                    self.console.print(line, highlight=False, markup=False, soft_wrap=True)
                    failed += [failure] if failure else []
        finally:
            _stop([r.process for r in running])
        order = [t.id for t in todo]
        return sorted(failed, key=lambda f: order.index(f.trial.id))

    def _start(self, trial: Trial, worker: int) -> 'Process':
        folder = self.store.clear(trial)
        spec = write_spec(trial, folder, self.keep_checkpoints)
        # The whole environment, since the server keeps that of its own start.
        env = dict(os.environ, OMP_NUM_THREADS=str(self.threads), MKL_NUM_THREADS=str(self.threads))
        env[OWNER] = str(os.getpid())
        if self.gpus:
            first = worker * self.store.world_size
            env['CUDA_VISIBLE_DEVICES'] = ','.join(self.gpus[first : first + self.store.world_size])
        if self.store.world_size > 1:
            return _distributed(spec, env, self.store.world_size)
        process = _fork_server(env).Process(target=run_forked, args=(str(spec), env, self.threads))
        process.start()
        return process

    def _outcome(self, r: _Running) -> Failure | None:
        folder = self.store.folder(r.trial)
        if r.process.exitcode == 0 and self.store.result(r.trial) is not None:
            return None
        log = folder / 'log.txt'
        lines = log.read_text(errors='replace').strip().splitlines()
        last = lines[-1] if lines else 'no output'
        return Failure(r.trial, log, f'failed (exit code {r.process.exitcode}): {last}')


class _Distributed(subprocess.Popen):
    """A sub-process with the names of :class:`multiprocessing.Process`."""

    @property
    def exitcode(self) -> int | None:
        return self.poll()


def _distributed(spec: Path, env: dict, count: int) -> _Distributed:
    """Start a trial on several devices, by torchrun."""
    torchrun = f'-m torch.distributed.run --standalone --nproc-per-node={count}'.split()
    trial = '-m', 'lm4ve.ablation.trial', str(spec), '--launcher', 'pytorch'
    with open(spec.with_name('log.txt'), 'wb') as log:
        return _Distributed(
            [sys.executable, *torchrun, *trial],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # The tool passes Ctrl-C on; a terminal must not do it too.
            start_new_session=True,
        )


def _fork_server(env: dict):
    """Return the context whose processes fork from one that has imported all."""
    # Read when libraries are loaded, that is in the server.
    os.environ.update({k: env[k] for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')})
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['lm4ve.ablation.preload'])
    return context


def _stop(processes: Sequence['Process']) -> None:
    """Ask trials to end, and end those that do not."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for p in processes:
            if p.exitcode is None:
                # Each is the leader of a group: its data loaders end with it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(p.pid, kind)
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(p.exitcode is None for p in processes):
            time.sleep(0.05)
