"""Runs the jobs of a study as tasks of an array of a Slurm cluster.

The cluster queues the tasks, limits how many run at a time, and requeues what it preempts
or what reaches its time limit; a requeued training continues from its last checkpoint.
The command itself only waits: it can be stopped and started again while tasks run, and
finds them by the file beside each job.
"""

import getpass
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lm4ve.errors import UserError
from lm4ve.files import read_json, write_json, write_text
from lm4ve.study.job import KINDS, Job, digest
from lm4ve.study.pool import Ended, Pool

#: Seconds between two looks at the queue.
INTERVAL = 5.0
#: Seconds that a shared file system may need to show the result of a task that has ended.
DELAY = 10.0
#: Options of sbatch where the user gives none; ``--time`` counts minutes.
_DEFAULTS = {'job-name': 'lm4ve', 'time': str(24 * 60)}
#: The file beside a job that names its task.
_NOTE = 'slurm.json'
#: A task. The limit is near at SIGUSR1: the job saves and stops, and the task comes back
#: even if it does not; 138 and 143 say that it was stopped and saved.
_SCRIPT = """\
#!/usr/bin/env bash
set -u
task=${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}
keys=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {keys})
signalled=
timer=
running=
stop() {{
  signalled=yes
  if [ -n "$running" ]; then kill -USR1 "$running"; fi
  (sleep 100; scontrol requeue "$task") &
  timer=$!
}}
trap stop USR1
export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}
export MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
srun --kill-on-bad-exit=1 {python} -m lm4ve.study.run_job {folder} $keys \
  --threads={threads} --launcher={launcher} &
running=$!
wait "$running"
code=$?
if [ -n "$signalled" ]; then
  wait "$running"
  code=$?
  kill "$timer"
fi
case $code in
  138 | 143) scontrol requeue "$task" ;;
esac
exit $code
"""


@dataclass
class SlurmPool(Pool):
    """Jobs as tasks of an array. The store lies in a folder that all nodes see.

    Attributes:
        options (Mapping[str, str]): Options of ``sbatch`` by their long names, such as
            partition, time (minutes), account, mem, gpus-per-node.
    """

    options: Mapping[str, str] = field(default_factory=dict)

    def _run(self, todo: list[Job]) -> Ended:
        """Submit jobs, except those that are queued already; wait for all."""
        if not todo:
            return
        active = _queue()
        # Jobs with the ids of their tasks.
        waiting: list[tuple[Job, str]] = []
        new: list[Job] = []
        for job in todo:
            task = self._task_of(job)
            if task is not None and task in active:
                waiting.append((job, task))
            else:
                new.append(job)
        if waiting:
            print(f'{len(waiting)} jobs are in the queue of Slurm already', flush=True)
        if new:
            waiting += self._submit(new)
        try:
            yield from self._wait(waiting)
        except (KeyboardInterrupt, GeneratorExit):
            _describe_waiting(waiting)
            raise

    def _submit(self, jobs: list[Job]) -> list[tuple[Job, str]]:
        """Submit jobs as one array; return each job with its task's id.

        Raises:
            UserError: sbatch refuses them, or there is none.
        """
        for job in jobs:
            self.store.prepare(job)
        shares = list(self._shares_of(jobs))
        folder = self.store.folder.resolve()
        name = digest([job.key for job in jobs])
        files = folder / 'slurm'
        lines = [' '.join(job.key for job in share) for share in shares]
        write_text('\n'.join([*lines, '']), files / f'{name}.keys')
        script = _SCRIPT.format(
            keys=shlex.quote(str(files / f'{name}.keys')),
            threads=self.threads,
            python=shlex.quote(sys.executable),
            folder=shlex.quote(str(folder)),
            launcher='slurm' if self.per_job > 1 else 'none',
        )
        write_text(script, files / f'{name}.sh')
        array = _sbatch(files / f'{name}.sh', self._flags(len(shares), files))
        print(f'submitted {len(jobs)} jobs to Slurm as job {array}', flush=True)
        submitted = []
        for number, share in enumerate(shares):
            for job in share:
                task = f'{array}_{number}'
                write_json(dict(task=task), self.store.folder_of(job) / _NOTE)
                submitted.append((job, task))
        return submitted

    def _shares_of(self, jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
        """Yield the jobs of each task: one training, or a worker's share of heads."""
        size = 1
        if not KINDS[jobs[0].kind].own_process:
            size = math.ceil(len(jobs) / self.workers)
        for start in range(0, len(jobs), size):
            yield jobs[start : start + size]

    def _flags(self, tasks: int, folder: Path) -> list[str]:
        """Return the flags of sbatch for an array of so many tasks.

        Args:
            tasks (int): Their number.
            folder (Path): Where their output goes.
        """
        options = dict(_DEFAULTS)
        options['array'] = f'0-{tasks - 1}%{self.workers}'
        options['nodes'] = '1'
        options['ntasks-per-node'] = str(self.per_job)
        options['cpus-per-task'] = str(self.threads)
        options['signal'] = 'B:USR1@120'
        options['open-mode'] = 'append'
        options['output'] = str(folder / '%A_%a.out')
        if self.per_job > 1:
            options['gpus-per-node'] = str(self.per_job)
        for name, value in self.options.items():
            options[name.replace('_', '-')] = value
        return ['--requeue', *(f'--{name}={value}' for name, value in options.items())]

    def _task_of(self, job: Job) -> str | None:
        """Return the id of the task that a job was last submitted as, or None."""
        stored = read_json(self.store.folder_of(job) / _NOTE)
        if not isinstance(stored, dict):
            return None
        task: str | None = stored.get('task')
        return task

    def _wait(self, waiting: list[tuple[Job, str]]) -> Ended:
        """Wait until no task is in the queue; yield each job that has ended.

        Args:
            waiting (list[tuple[Job, str]]): Jobs with the ids of their tasks. A job that
                has ended is taken out, so that the list always holds those in the queue.
        """
        while waiting:
            active = _queue()
            gone = [(job, task) for job, task in waiting if task not in active]
            if any(self.store.result(job) is None for job, _ in gone):
                time.sleep(DELAY)
                active = _queue()  # a requeued task is back
            for job, task in gone:
                if task in active:
                    continue
                waiting.remove((job, task))
                yield job, self.outcome(job, f'ended (Slurm job {task})')
            if waiting:
                time.sleep(INTERVAL)


def _describe_waiting(waiting: Sequence[tuple[Job, str]]) -> None:
    """Print how to go on waiting for jobs, and how to end them."""
    arrays = sorted({task.partition('_')[0] for _, task in waiting})
    print(
        f'{len(waiting)} jobs stay in the queue of Slurm. The same command waits for '
        f'them again; this ends them: scancel {" ".join(arrays)}',
        flush=True,
    )


def _sbatch(script: Path, flags: Sequence[str]) -> str:
    """Submit a script; return the job's id.

    Raises:
        UserError: sbatch refuses it, or there is none.
    """
    command = ['sbatch', '--parsable', *flags, str(script)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as e:
        raise UserError('There is no Slurm here: sbatch is missing.') from e
    if done.returncode:
        raise UserError(f'sbatch refuses the jobs: {done.stderr.strip()}')
    job, _, _ = done.stdout.strip().partition(';')
    return job


def _queue() -> set[str]:
    """Return the ids of the user's tasks that wait or run, such as ``'12_3'``.

    One that waits to be requeued is among them.

    Raises:
        UserError: There is no Slurm here.
    """
    # '--all' includes hidden partitions.
    command = ['squeue', '--noheader', '--array', '--all', '--format=%i']
    command.append(f'--user={getpass.getuser()}')
    try:
        output = subprocess.check_output(command, text=True)
    except FileNotFoundError as e:
        raise UserError('There is no Slurm here: squeue is missing.') from e
    return set(output.split())
