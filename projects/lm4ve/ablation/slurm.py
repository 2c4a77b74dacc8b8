"""Runs trials as jobs of a Slurm cluster, through submitit.

Trials become arrays of jobs. The cluster queues them, limits how many run at a time, and
requeues what it preempts; a requeued trial begins anew. The tool itself only waits: it can
be stopped and started again while jobs run, and finds them by what it wrote beside each trial.
"""

import contextlib
import getpass
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment
from submitit.slurm.slurm import SlurmExecutor

from lm4ve.ablation.executor import Executor, Failure
from lm4ve.ablation.grid import Trial
from lm4ve.ablation.store import WRITE_FIX, Store
from lm4ve.ablation.trial import run_job, write_spec
from lm4ve.errors import UserError
from lm4ve.files import write_json

#: Seconds between two looks at the queue.
INTERVAL = 5.0
#: Seconds that a shared file system may take to show the result of a job that has ended.
DELAY = 10.0
#: Jobs of one array; clusters allow 1,001 unless they say otherwise.
ARRAY = 1000
#: What the tool sets by flags of its own.
OWN = ('array_parallelism', 'cpus_per_task', 'ntasks_per_node', 'nodes', 'setup')


@dataclass
class TrialJob:
    """What a job does; submitit pickles it into the work folder and runs it there.

    Attributes:
        spec (str): Path of the trial's specification.
        token (str): Names the submission. A job whose trial has been submitted again
            since then does nothing.
        threads (int): CPU threads.
        distributed (bool): The job has a task for each process of the trial.
    """

    spec: str
    token: str
    threads: int
    distributed: bool

    def __call__(self) -> None:
        """Train and test the trial, unless another submission owns it now."""
        if _note(Path(self.spec).parent).get('token') != self.token:
            print(f'{self.spec} has been submitted again: this job has nothing to do.')
            return
        if self.distributed:
            TorchDistributedEnvironment().export(overwrite=True)
        run_job(Path(self.spec), self.threads, 'pytorch' if self.distributed else 'none')

    def checkpoint(self, *args: Any, **kwargs: Any) -> DelayedSubmission:
        """Say what a preempted job does when it runs again: the same, from the beginning."""
        return DelayedSubmission(self)


class SlurmJobs(Executor):
    """Trials as jobs.

    Args:
        store (Store): Locked, in a folder that all nodes see.
        count (int): Trials at a time.
        threads (int): CPU cores of each process of a trial.
        options (Mapping[str, str]): What ``sbatch`` is given, by submitit's names:
            partition, time (minutes), account, mem, gpus_per_node and so on.
        keep_checkpoints (bool): See :class:`Executor`.
        console (Console): See :class:`Executor`.

    Raises:
        UserError: There is no Slurm here, or an option is unknown.
    """

    def __init__(
        self,
        store: Store,
        count: int = 1,
        threads: int = 1,
        options: Mapping[str, str] | None = None,
        keep_checkpoints: bool = False,
        console: Console | None = None,
    ) -> None:
        super().__init__(store, keep_checkpoints, console)
        self.threads = threads
        # Absolute, since a job may begin in another folder.
        self.executor = _executor(store.work_dir.resolve() / 'slurm')
        given = {k: _number(v) for k, v in (options or {}).items()}
        known = set(self.executor._valid_parameters()) | set(self.executor._equivalence_dict())
        for name in given:
            if name in OWN or name not in known:
                raise UserError(
                    f'--slurm {name}: '
                    + ('the tool sets this itself.' if name in OWN else 'submitit knows no such.')
                    + f' Fix: one of {", ".join(sorted(known - set(OWN)))}.'
                )
        processes = store.world_size
        if processes > 1:
            given.setdefault('gpus_per_node', processes)
        self.executor.update_parameters(
            **{
                'job_name': 'lm4ve',
                'time': 24 * 60,
                **given,
                'array_parallelism': count,
                'nodes': 1,
                'ntasks_per_node': processes,
                'cpus_per_task': threads,
                'setup': [f'export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}'],
            }
        )

    def _run(self, todo: list[Trial], ended: Callable[[Trial, Failure | None], None]) -> None:
        active = _queue()
        known = [(t, _note(self.store.folder(t)).get('job')) for t in todo]
        waiting = [(t, job) for t, job in known if job in active]
        if waiting:
            self.say(f'{len(waiting)} trials are in the queue of Slurm already')
        for new in _parts([t for t, job in known if job not in active], ARRAY):
            waiting += self._submit(new)
        try:
            self._wait(waiting, ended)
        except KeyboardInterrupt:
            jobs = ' '.join(sorted({job.partition('_')[0] for _, job in waiting}))
            self.say(
                f'{len(waiting)} trials stay in the queue of Slurm. The same command waits for '
                f'them again; this ends them: scancel {jobs}'
            )
            raise

    def _submit(self, trials: Sequence[Trial]) -> list[tuple[Trial, str]]:
        """Submit an array; return the job of each trial."""
        calls = []
        for trial in trials:
            folder = self.store.clear(trial).resolve()
            spec = write_spec(trial, folder, self.keep_checkpoints)
            token = uuid.uuid4().hex
            write_json(dict(token=token), folder / 'slurm.json', WRITE_FIX)
            calls.append(TrialJob(str(spec), token, self.threads, self.store.world_size > 1))
        try:
            with self.executor.batch():
                jobs = [self.executor.submit(call) for call in calls]
        except Exception as e:  # FailedJobError, with what sbatch has said
            said = ' '.join(str(e).split())
            raise UserError(
                f'Slurm refuses the jobs: {said} Fix: correct --slurm, for example '
                'partition=NAME time=120 (sinfo lists the partitions).'
            ) from e
        for trial, call, job in zip(trials, calls, jobs, strict=True):
            path = self.store.folder(trial) / 'slurm.json'
            write_json(dict(token=call.token, job=job.job_id), path, WRITE_FIX)
        self.say(f'submitted {len(jobs)} trials to Slurm as job {jobs[0].job_id.partition("_")[0]}')
        return [(t, job.job_id) for t, job in zip(trials, jobs, strict=True)]

    def _wait(
        self, waiting: list[tuple[Trial, str]], ended: Callable[[Trial, Failure | None], None]
    ) -> None:
        """Wait until no job of ours is in the queue; a trial with a result has succeeded.

        What has ended leaves the list.
        """
        gone: dict[str, float] = {}
        while waiting:
            active = _queue()
            for trial, job in [*waiting]:
                if job in active:
                    gone.pop(job, None)
                    continue
                done = self.store.result(trial) is not None
                if done or time.monotonic() - gone.setdefault(job, time.monotonic()) > DELAY:
                    waiting.remove((trial, job))
                    ended(trial, None if done else self.failure(trial, f'ended (Slurm job {job})'))
            if waiting:
                time.sleep(INTERVAL)


def _executor(folder: Path) -> SlurmExecutor:
    """Return submitit's executor, which writes scripts and logs into a folder.

    Raises:
        UserError: This machine submits nothing to a Slurm.
    """
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(['sbatch', '--version'], check=True, capture_output=True)
        return SlurmExecutor(folder, max_num_timeout=3)
    raise UserError(
        '--executor slurm: the command sbatch is not here. Fix: run the tool on a node that '
        'submits to Slurm, or leave the flag out to run on this machine.'
    )


def _queue() -> set[str]:
    """Return the user's jobs that wait or run, ``'12_3'`` for an element of an array.

    Raises:
        UserError: Slurm does not answer for ten minutes.
    """
    # Of all partitions, also hidden ones. A job that waits for its requeueing is among them.
    command = ['squeue', '--noheader', '--array', '--all', '--user', getpass.getuser()]
    said = ''
    for pause in (0, 5, 30, 120, 445):  # a controller that restarts, or is busy
        time.sleep(pause)
        done = subprocess.run(
            [*command, '--format=%i'], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return set(done.stdout.split())
        said = ' '.join(done.stderr.split())
    raise UserError(
        f'squeue does not answer: {said} Fix: when Slurm is there again, the same command '
        'goes on with the jobs that it has submitted.'
    )


def _note(folder: Path) -> dict[str, Any]:
    """Return what is noted of a trial's submission."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / 'slurm.json').read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _parts(items: Sequence[Trial], size: int) -> Iterator[Sequence[Trial]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]


def _number(text: str) -> str | int:
    return int(text) if text.isascii() and text.isdigit() else text
