"""When ``slurm_batch.sh`` asks Slurm for another start, with stand-ins for Slurm's commands.

``tests/slurm`` runs the script on a real Slurm.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.tasks import ROOT

#: Trains: may wait for a signal, may save, and ends with a code.
SRUN = """#!/usr/bin/env bash
echo "$SRUN_CPUS_PER_TASK" > "$FOLDER/cpus"
if [ -n "$WAITS" ]; then
  trap 'signalled=yes' USR1
  touch "$FOLDER/waits"
  for ((i = 0; i < 600 && ${#signalled} == 0; i++)); do sleep 0.05; done
fi
sleep "$SAVING"
if [ -n "$SAVES" ]; then echo "$SAVES" > "$FOLDER/work/last_checkpoint"; fi
exit "$CODE"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = requeue ]; then echo "$2" >> "$FOLDER/requeued"; exit; fi
echo "   StartTime=2026-12-02T10:00:00 EndTime=Unknown"
echo "   PreemptEligibleTime=2026-12-02T10:00:00 PreemptTime=$PREEMPTED"
"""


@pytest.fixture
def batch(tmp_path):
    """Runs the script as job 77; returns its exit code, and how often it was requeued."""
    for name, text in (('srun', SRUN), ('scontrol', SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'work').mkdir()

    def run(code: int, signals: bool = False, **variables: str) -> tuple[int, int]:
        requeued = tmp_path / 'requeued'
        requeued.unlink(missing_ok=True)
        (tmp_path / 'waits').unlink(missing_ok=True)
        env = os.environ | dict(
            PATH=f'{tmp_path}:{os.environ["PATH"]}',
            FOLDER=str(tmp_path),
            SLURM_JOB_ID='77',
            CODE=str(code),
            WAITS='yes' if signals else '',
            SAVING='0',
            SAVES='',
            PREEMPTED='None',
        )
        command = ['bash', ROOT / 'tools/slurm_batch.sh', 'c.py', tmp_path / 'work']
        with subprocess.Popen(command, env=env | variables) as job:
            while signals and not (tmp_path / 'waits').exists():
                time.sleep(0.02)
            if signals:
                job.send_signal(signal.SIGUSR1)
            ended = job.wait(60)
        if not requeued.exists():
            return ended, 0
        numbers = requeued.read_text().split()
        assert set(numbers) == {variables.get('expected', '77')}
        return ended, len(numbers)

    return run


@pytest.mark.parametrize('code', [1, 2, 137, 143])
def test_job_that_failed_stays_failed(batch, code):
    # 143 is what srun returns when it ends the other tasks of one that has failed.
    assert batch(code) == (code, 0)


@pytest.mark.parametrize(
    'code, times', [(143, 1), (138, 1), (137, 1), (1, 1), (2, 0), (0, 0)]
)
def test_job_comes_back_after_the_signal_unless_done_or_wrong(batch, code, times):
    assert batch(code, signals=True) == (code, times)


@pytest.mark.parametrize(
    'preempted, times',
    [('2026-12-02T11:00:00', 1), ('2026-12-02T09:00:00', 0), ('None', 0)],
)
def test_preempted_job_comes_back(batch, preempted, times):
    # One that was preempted before its start has failed since.
    assert batch(143, PREEMPTED=preempted) == (143, times)


def test_job_comes_back_three_times_without_a_new_checkpoint(batch):
    back = [batch(143, signals=True)[1] for _ in range(5)]
    assert back == [1, 1, 1, 0, 0]
    # Another job in the same folder begins anew.
    assert batch(143, signals=True, SLURM_JOB_ID='78', expected='78')[1] == 1


def test_new_checkpoint_is_progress(batch):
    for number in range(6):
        saved = f'iter_{number}.pth'
        assert batch(143, signals=True, SAVES=saved)[1] == 1
        assert batch(143, signals=True)[1] == 1


def test_job_comes_back_though_saving_takes_too_long(batch):
    # Once by the clock; a real Slurm ends the job then.
    assert batch(143, signals=True, SAVE_SECONDS='0.5', SAVING='2')[1] == 2


def test_task_of_an_array_comes_back_alone(batch):
    array = dict(SLURM_ARRAY_JOB_ID='70', SLURM_ARRAY_TASK_ID='4')
    assert batch(143, signals=True, expected='70_4', **array)[1] == 1


def test_cores_of_a_task_reach_srun(batch, tmp_path):
    batch(0, SLURM_CPUS_PER_TASK='5')
    assert (tmp_path / 'cpus').read_text() == '5\n'


#: Sends the script its signal right before it notes the id of the training.
EARLY = """\
trap 'case $BASH_COMMAND in training=*!) trap - DEBUG; kill -USR1 $$;; esac' DEBUG
"""


def test_a_signal_before_the_training_is_noted_brings_the_job_back(tmp_path):
    early = tmp_path / 'early.sh'
    early.write_text(EARLY)
    (tmp_path / 'srun').write_text('#!/bin/sh\nsleep 1\n')
    (tmp_path / 'scontrol').write_text('#!/bin/sh\necho "$@"\n')
    for name in ('srun', 'scontrol'):
        (tmp_path / name).chmod(0o755)
    env = os.environ | dict(
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        BASH_ENV=str(early),
        SLURM_JOB_ID='7',
        SAVE_SECONDS='0',
    )
    done = subprocess.run(
        ['bash', ROOT / 'tools/slurm_batch.sh', 'config.py', tmp_path],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert 'requeue 7' in done.stdout
    assert done.returncode == 0


KILLED = [
    # What the task got, what its command does, the code, what is printed.
    (signal.SIGUSR1, 'sleep(60)', 143, ''),
    (signal.SIGTERM, 'sleep(60)', 143, ''),
    (signal.SIGINT, 'sleep(60)', 130, ''),
    (None, 'os.kill(os.getpid(), 9)', 1, 'error: rank 3 ('),
    (None, 'sys.exit(2)', 2, ''),
]


@pytest.mark.parametrize('number, action, code, words', KILLED)
def test_task_ends_with_a_code_of_the_table(tmp_path, number, action, code, words):
    package = tmp_path / 'lm4ve/commands'
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / '__init__.py').touch()
    begun = tmp_path / 'begun'
    lines = (
        'import os, sys',
        'from time import sleep',
        # As of a process that Python does not handle: without a traceback.
        'import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)',
        f'open({str(begun)!r}, "w")',
        action,
    )
    (package / '__main__.py').write_text('\n'.join(lines))
    start = (
        'import os, sys; from lm4ve.commands.slurm_task import main; '
        'os.environ["PYTHONPATH"] = sys.argv.pop(1); main()'
    )
    command = [sys.executable, '-c', start, str(tmp_path)]
    env = os.environ | dict(SLURM_PROCID='3')
    task = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    while not begun.exists():
        assert task.poll() is None
        time.sleep(0.05)
    if number is not None:
        task.send_signal(number)
    _, errors = task.communicate(timeout=60)
    assert task.returncode == code
    assert errors.strip().startswith(words)
    assert bool(errors) == bool(words)
