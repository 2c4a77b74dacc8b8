"""Runs trials as processes of their own on a number of workers.

Stopping the tool stops its trials; finished trials stay, and the next start goes on from
there.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from rich.console import Console

from lm4ve.ablation.executor import Executor, Failure
from lm4ve.ablation.fields import fresh_config
from lm4ve.ablation.grid import Trial
from lm4ve.ablation.store import Store
from lm4ve.ablation.trial import OWNER, SCOPES, run_forked, write_spec

Process = Union[multiprocessing.process.BaseProcess, '_Distributed']
#: Seconds that a trial has to end after it was asked to.
GRACE = 5.0


@dataclass
class _Running:
    trial: Trial
    process: 'Process'
    worker: int


class Workers(Executor):
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
        super().__init__(store, keep_checkpoints, console)
        self.count, self.threads = count, threads
        self.gpus = list(gpus)

    def _run(self, todo: list[Trial], ended: Callable[[Trial, Failure | None], None]) -> None:
        scopes = {fresh_config(c).get('default_scope') for c in {t.config for t in todo}}
        os.environ[SCOPES] = ','.join(sorted(filter(None, scopes)))
        queue, running = list(todo), []
        free = list(range(self.count))
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
                    ended(r.trial, self._outcome(r))
        finally:
            _stop([r.process for r in running])

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
        if r.process.exitcode == 0 and self.store.result(r.trial) is not None:
            return None
        return self.failure(r.trial, f'failed (exit code {r.process.exitcode})')


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
