"""Runs trials as jobs of a Slurm cluster, through submitit.

Trials become arrays of jobs. The cluster queues them, limits how many run at a time,
and requeues what it preempts or what reaches its time limit; a requeued trial continues
from its last checkpoint. The command itself only waits: it can be stopped and started
again while jobs run, and finds them by the file beside each trial.
"""

import getpass
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submitit.helpers import Checkpointable, TorchDistributedEnvironment
from submitit.slurm.slurm import SlurmExecutor

from lm4ve.ablation.grid import Trial
from lm4ve.ablation.trial import run_logged, write_spec
from lm4ve.ablation.workers import Ended, Executor
from lm4ve.files import read_json, write_json

#: Seconds between two looks at the queue.
INTERVAL = 5.0
#: Seconds that a shared file system may need to show the result of a job that has
#: ended.
DELAY = 10.0
#: Seconds that a job waits at most for its end after SIGTERM.
_UNTIL_ENDED = 600


@dataclass
class TrialJob(Checkpointable):
    """The work of a job; submitit pickles it into the work folder and calls it there.

    A job that is called again continues the trial.

    Attributes:
        threads (int): CPU threads.
        distributed (bool): The job has a task for each process of the trial.
    """

    threads: int
    distributed: bool

    def __call__(self, spec: Path) -> None:
        """Train and test the trial of a specification, unless it has a result."""
        launcher = 'none'
        if self.distributed:
            TorchDistributedEnvironment().export(overwrite=True)
            launcher = 'pytorch'
        try:
            run_logged(spec, self.threads, launcher)
        except SystemExit as end:
            _let_requeue(end)
            raise


def _let_requeue(end: SystemExit) -> None:
    """Let the cluster start a job again whose trial a signal has stopped.

    Args:
        end (SystemExit): What the trial ended with.
    """
    if end.code == 128 + signal.SIGUSR2:
        # Sent before the time limit or at preemption. The trial is saved; now submitit's
        # own handler requeues the job and ends it.
        signal.raise_signal(signal.SIGUSR2)
    elif end.code == 128 + signal.SIGTERM:
        # Slurm ends or requeues the job. One that ends before that would count as failed.
        time.sleep(_UNTIL_ENDED)


@dataclass
class SlurmJobs(Executor):
    """Trials as jobs. The store lies in a folder that all nodes see.

    Args:
        options (Mapping[str, str]): Options of ``sbatch``, by submitit's names:
            partition, time (minutes), account, mem, gpus_per_node and so on.

    Raises:
        RuntimeError: There is no Slurm here.
        NameError: submitit has no such option.
    """

    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Set up submitit's executor, whose files go below the work folder."""
        # Absolute, since a job may begin in another folder.
        folder = self.store.work_dir.resolve() / 'slurm'
        self.executor = SlurmExecutor(folder, max_num_timeout=3)
        parameters: dict[str, Any] = dict(job_name='lm4ve', time=24 * 60)
        if self.store.world_size > 1:
            parameters['gpus_per_node'] = self.store.world_size
        for name, value in self.options.items():
            parameters[name] = int(value) if value.isdecimal() else value
        threads = self.threads
        self.executor.update_parameters(
            array_parallelism=self.count,
            nodes=1,
            ntasks_per_node=self.store.world_size,
            cpus_per_task=threads,
            setup=[f'export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}'],
            **parameters,
        )

    def _run(self, todo: list[Trial]) -> Ended:
        """Submit trials as jobs, except those that are queued already; wait for all."""
        active = _queue()
        # Trials with the ids of their jobs.
        waiting: list[tuple[Trial, str]] = []
        new: list[Trial] = []
        for trial in todo:
            job = self._job_of(trial)
            if job is not None and job in active:
                waiting.append((trial, job))
            else:
                new.append(trial)
        if waiting:
            self.say(f'{len(waiting)} trials are in the queue of Slurm already')
        if new:
            waiting += self._submit(new)
        try:
            yield from self._wait(waiting)
        except (KeyboardInterrupt, GeneratorExit):
            self._describe_waiting(waiting)
            raise

    def _describe_waiting(self, waiting: Sequence[tuple[Trial, str]]) -> None:
        """Print how to go on waiting for jobs, and how to end them."""
        arrays = sorted({job.partition('_')[0] for _, job in waiting})
        self.say(
            f'{len(waiting)} trials stay in the queue of Slurm. The same command waits for '
            f'them again; this ends them: scancel {" ".join(arrays)}'
        )

    def _submit(self, trials: Sequence[Trial]) -> list[tuple[Trial, str]]:
        """Submit trials as one array of jobs; return each trial with its job's id."""
        specs = []
        for trial in trials:
            folder = self.store.clear(trial).resolve()
            size = self.store.world_size
            specs.append(write_spec(trial, folder, self.keep_checkpoints, size))
        work = TrialJob(self.threads, distributed=self.store.world_size > 1)
        jobs = [job.job_id for job in self.executor.map_array(work, specs)]
        for trial, job in zip(trials, jobs, strict=True):
            write_json(dict(job=job), self.store.folder(trial) / 'slurm.json')
        array, _, _ = jobs[0].partition('_')
        self.say(f'submitted {len(jobs)} trials to Slurm as job {array}')
        return list(zip(trials, jobs, strict=True))

    def _job_of(self, trial: Trial) -> str | None:
        """Return the id of the job that a trial was last submitted as, or None."""
        stored = read_json(self.store.folder(trial) / 'slurm.json')
        if not isinstance(stored, dict):
            return None
        job: str | None = stored.get('job')
        return job

    def _wait(self, waiting: list[tuple[Trial, str]]) -> Ended:
        """Wait until no job is in the queue; yield each trial that has ended.

        Args:
            waiting (list[tuple[Trial, str]]): Trials with the ids of their jobs. A trial
                that has ended is taken out, so that the list always holds those in the
                queue.
        """
        while waiting:
            active = _queue()
            gone = [(trial, job) for trial, job in waiting if job not in active]
            if any(self.store.result(trial) is None for trial, _ in gone):
                time.sleep(DELAY)
                active = _queue()  # a requeued job is back
            for trial, job in gone:
                if job in active:
                    continue
                waiting.remove((trial, job))
                yield trial, self.outcome(trial, f'ended (Slurm job {job})')
            if waiting:
                time.sleep(INTERVAL)


def _queue() -> set[str]:
    """Return the ids of the user's jobs that wait or run, ``'12_3'`` for one of an array.

    A job that waits to be requeued is among them.
    """
    # '--all' includes hidden partitions.
    command = [
        'squeue',
        '--noheader',
        '--array',
        '--all',
        f'--user={getpass.getuser()}',
        '--format=%i',
    ]
    output = subprocess.check_output(command, text=True)
    return set(output.split())
