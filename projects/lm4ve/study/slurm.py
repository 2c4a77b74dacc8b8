"""Runs the jobs of a study as tasks of an array of a Slurm cluster, through submitit.

The cluster queues the tasks, limits how many run at a time, and requeues what it preempts
or what reaches its time limit; a requeued training continues from its last checkpoint.
The command submits and ends, so that no process waits for days beside the queue. Started
again it finds the tasks by the file beside each job, and submits the next round, or
reports.
"""

import getpass
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from submitit.core.utils import FailedJobError
from submitit.helpers import Checkpointable, TorchDistributedEnvironment
from submitit.slurm.slurm import SlurmExecutor

from lm4ve.errors import UserError, require
from lm4ve.files import read_json, write_json
from lm4ve.runner.ending.child import run_child
from lm4ve.runner.exit_codes import DONE, STOPPED
from lm4ve.study.job import KINDS, Job
from lm4ve.study.pool import Ended, Pool, job_words
from lm4ve.study.store import read_result

#: Minutes that a task may run.
_LIMIT = 24 * 60
#: Seconds that a task waits at most until Slurm ends it.
_UNTIL_ENDED = 600
#: The file beside a job that names its task.
_NOTE = 'slurm.json'


@dataclass
class Task(Checkpointable):
    """What a task of the array does; submitit pickles it and calls it there.

    The jobs are a command of their own: processes that train together end at once at a
    signal, and submitit has to requeue the task after that. A task that is called again
    continues.

    Attributes:
        threads (int): CPU threads of each process.
        distributed (bool): The task is several processes, each of which calls this.
    """

    threads: int
    distributed: bool

    def __call__(self, folders: Sequence[Path]) -> None:
        """Run the jobs of some folders that have no result. One that fails stops no other.

        Raises:
            SystemExit: With the code of the last command that failed, or 0.
        """
        launcher = 'none'
        if self.distributed:
            # Each process sees all devices and takes one by its rank.
            environment = TorchDistributedEnvironment()
            environment.export(set_cuda_visible_devices=False, overwrite=True)
            launcher = 'pytorch'
        code = 0
        todo = list(folders)
        while todo:
            code = _run_command(job_words(todo, self.threads, launcher)) or code
            # The first one without a result has failed, and ended the command.
            todo = [folder for folder in todo if read_result(folder) is None][1:]
        sys.exit(code)


def _run_command(words: Sequence[str]) -> int:
    """Run a command of Python and return its code; one that was stopped ends the task.

    Args:
        words (Sequence[str]): What follows ``python``.
    """
    ended = run_child([sys.executable, *words], (signal.SIGTERM, signal.SIGUSR2))
    if not _was_stopped(ended.code):
        return ended.code
    if signal.SIGUSR2 in ended.passed_on:
        # Sent before the time limit or at preemption. Now submitit's own handler
        # requeues the task and ends it; in processes but the first it does nothing.
        signal.raise_signal(signal.SIGUSR2)
    # Slurm ends or requeues the task. One that ends before would count as failed.
    time.sleep(_UNTIL_ENDED)
    return ended.code


def _was_stopped(code: int) -> bool:
    """Return whether a command ended by a signal: as it ends itself, or while it started."""
    return code in (STOPPED, -signal.SIGUSR2, -signal.SIGTERM)


@dataclass
class SlurmPool(Pool):
    """Jobs as tasks of an array. The store lies in a folder that all nodes see.

    Attributes:
        options (Mapping[str, str]): Options of ``sbatch`` by their long names, such as
            partition, time (minutes), account, mem, gpus_per_node.
    """

    options: Mapping[str, str] = field(default_factory=dict)

    def _run(self, todo: list[Job]) -> Ended:
        """Submit jobs that were not submitted yet, and end the command while any is queued.

        Once none is queued, a job without a result has failed. It is told of, and the next
        command submits it again.

        Raises:
            SystemExit: Jobs are in the queue; nothing failed.
            UserError: Slurm refuses the jobs, or does not answer.
        """
        active = _queue()
        queued: list[str] = []
        failed: list[tuple[Job, str]] = []
        new: list[Job] = []
        for job in todo:
            task = self._task_of(job)
            if task is None:
                new.append(job)
            elif task in active:
                queued.append(task)
            else:
                failed.append((job, task))
        if queued:
            print(f'{len(queued)} jobs are in the queue of Slurm already', flush=True)
        if new:
            queued += self._submit(new)
        if queued:
            _describe_queued(queued)
            sys.exit(DONE)
        for job, task in failed:
            (self.store.folder_of(job) / _NOTE).unlink(missing_ok=True)
            yield job, self.outcome(job, f'ended (Slurm job {task})')

    def _submit(self, jobs: list[Job]) -> list[str]:
        """Submit jobs as one array; return the id of each job's task.

        Raises:
            UserError: Slurm refuses them.
        """
        for job in jobs:
            self.store.prepare(job)
        shares = self._shares_of(jobs)
        folders = [
            [self.store.folder_of(job).resolve() for job in share] for share in shares
        ]
        work = Task(self.threads, distributed=self.per_job > 1)
        try:
            tasks = self._executor().map_array(work, folders)
        except FailedJobError as e:
            raise UserError(f'Slurm refuses the jobs: {e}') from e
        submitted = []
        for share, task in zip(shares, tasks, strict=True):
            for job in share:
                write_json(dict(task=task.job_id), self.store.folder_of(job) / _NOTE)
                submitted.append(task.job_id)
        array, _, _ = tasks[0].job_id.partition('_')
        print(f'submitted {len(jobs)} jobs to Slurm as job {array}', flush=True)
        return submitted

    def _shares_of(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """Return the jobs of each task: one training, or a worker's share of heads."""
        count = len(jobs)
        if not KINDS[jobs[0].kind].own_process:
            count = min(count, self.workers)
        # Costly jobs come first, so that each task gets some of them.
        return [jobs[first::count] for first in range(count)]

    def _executor(self) -> SlurmExecutor:
        """Return submitit's executor, whose files lie below the store.

        Raises:
            UserError: The time is not a number of minutes.
        """
        # With underscores, as submitit spells its own.
        options = {
            name.replace('-', '_'): value for name, value in self.options.items()
        }
        minutes = options.pop('time', str(_LIMIT))
        require(
            minutes.isdecimal(),
            f"--slurm time='{minutes}' is no number of minutes. Fix: for example time=120.",
        )
        if self.per_job > 1:
            options.setdefault('gpus_per_node', str(self.per_job))
        # Absolute, since a task may begin in another folder.
        executor = SlurmExecutor(self.store.folder.resolve() / 'slurm')
        executor.update_parameters(
            job_name='lm4ve',
            time=int(minutes),
            array_parallelism=self.workers,
            nodes=1,
            ntasks_per_node=self.per_job,
            cpus_per_task=self.threads,
            setup=[
                f'export OMP_NUM_THREADS={self.threads} MKL_NUM_THREADS={self.threads}'
            ],
            # Processes that train together would wait for one that has failed.
            srun_args=['--kill-on-bad-exit=1'],
            additional_parameters=options,
        )
        return executor

    def _task_of(self, job: Job) -> str | None:
        """Return the id of the task that a job was last submitted as, or None."""
        stored = read_json(self.store.folder_of(job) / _NOTE)
        if not isinstance(stored, dict):
            return None
        task: str | None = stored.get('task')
        return task


def _describe_queued(tasks: Sequence[str]) -> None:
    """Print how to go on once jobs have ended, and how to end them."""
    arrays = sorted({task.partition('_')[0] for task in tasks})
    print(
        f'{len(tasks)} jobs are in the queue of Slurm. Once they have ended, the same command '
        f'goes on, or reports. This ends them: scancel {" ".join(arrays)}',
        flush=True,
    )


def _queue() -> set[str]:
    """Return the ids of the user's tasks that wait or run, such as ``'12_3'``.

    One that waits to be requeued is among them. submitit asks ``sacct``, which needs
    Slurm's accounting.

    Raises:
        UserError: There is no Slurm here, or it does not answer.
    """
    # '--all' includes hidden partitions.
    command = ['squeue', '--noheader', '--array', '--all', '--format=%i']
    command.append(f'--user={getpass.getuser()}')
    try:
        asked = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as e:
        raise UserError('There is no Slurm here: squeue is missing.') from e
    if asked.returncode != 0:
        raise UserError(
            f'Slurm does not answer: {asked.stderr.strip()}. Its jobs go on. Fix: the same '
            'command again, later.'
        )
    return set(asked.stdout.split())
