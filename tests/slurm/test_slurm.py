"""Grids and trainings on a real Slurm of one node: disturbed, they end as undisturbed ones."""

import contextlib
import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.helpers.grids.command import results, run, when_a_trial_hangs
from tests.helpers.grids.toy import GRID, HANG, write_grid
from tests.helpers.processes import environment
from tests.helpers.slurm import (
    CPUS,
    reason_against,
    running,
    show,
    submit,
    wait_until,
)
from tests.helpers.slurm_training import EPOCHS, write_config
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_command
from tools.dev.check_resume import is_same, state_of

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
pytest.importorskip('submitit')


@pytest.fixture(scope='module')
def cluster():
    reason = reason_against()
    if reason is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix='slurm', ignore_cleanup_errors=True)
        path = Path(stack.enter_context(folder))
        try:
            stack.enter_context(running(path))
        except (OSError, subprocess.SubprocessError) as e:
            pytest.skip(f'no Slurm can be started here: {e}')
        yield


@pytest.fixture
def on_slurm(cluster, monkeypatch):
    """Run the tool on the cluster; jobs find the toy."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT), prepend=os.pathsep)
    return lambda *words: run(*words, '--executor', 'slurm', '--workers', 2)


@pytest.fixture
def hang(tmp_path, monkeypatch):
    """A file: while it is there, trials hang."""
    file = tmp_path / 'hang'
    file.touch()
    monkeypatch.setenv(HANG, str(file))
    return file


def wait_until_the_queue_is_empty() -> None:
    """Wait until all jobs have ended; one that was requeued has not."""
    wait_until(lambda: not subprocess.check_output(['squeue', '--noheader', '--array']))


def jobs_of(out: Path) -> dict[Path, str]:
    """Return the Slurm jobs that a grid noted, by the notes' files."""
    notes = out.glob('jobs/*/slurm.json')
    return {note: json.loads(note.read_text())['task'] for note in notes}


def test_a_cancelled_grid_resumes_to_a_local_grids_results(
    tmp_path, on_slurm, hang, capsys
):
    grid = write_grid(tmp_path, GRID)
    out = tmp_path / 'out'
    with when_a_trial_hangs(hang, 'scancel --user=root'):
        assert on_slurm(grid, out) == 0
        wait_until_the_queue_is_empty()
    assert on_slurm(grid, out) == 2
    assert 'ended (Slurm job ' in capsys.readouterr().err
    hang.unlink()
    assert on_slurm(grid, out) == 0
    assert not list(out.glob('*/report.html'))
    wait_until_the_queue_is_empty()
    assert on_slurm(grid, out) == 0
    assert len(results(out)) == 4
    assert run(grid, tmp_path / 'local', '--workers', 2) == 0
    (on_cluster,) = out.glob('*/results.csv')
    (local,) = (tmp_path / 'local').glob('*/results.csv')
    assert on_cluster.read_bytes() == local.read_bytes()


def test_a_command_finds_its_requeued_jobs_again(tmp_path, on_slurm, hang, capsys):
    grid = write_grid(tmp_path, GRID)
    out = tmp_path / 'out'
    assert on_slurm(grid, out, '--seeds', 0) == 0
    printed = capsys.readouterr().out
    assert '2 jobs are in the queue of Slurm. ' in printed
    assert 'scancel ' in printed
    jobs = jobs_of(out)
    requeue = (
        f'rm {hang}; for j in $(squeue -h -t R -o %i); do scontrol requeue $j; done'
    )
    with when_a_trial_hangs(hang, requeue):
        wait_until(lambda: not hang.exists())
        assert on_slurm(grid, out, '--seeds', 0) == 0
        wait_until_the_queue_is_empty()
    assert '2 jobs are in the queue of Slurm already' in capsys.readouterr().out
    assert on_slurm(grid, out, '--seeds', 0) == 0
    assert len(results(out)) == 2
    assert jobs_of(out) == jobs


#: Two trials of 80 steps.
LONG_GRID = f"""{GRID}common = {{
    'custom_imports.imports': ['tests.helpers.slurm_training'],
    'custom_hooks': [dict(type='SlowFirstStartHook', mark='MARK')],
    'train_cfg.max_epochs': 20,
    'default_hooks.checkpoint.interval': 9}}
"""


def test_disturbed_trials_of_an_array_continue_to_a_local_grids_results(
    tmp_path, on_slurm
):
    """One task of the array is requeued, the other one gets submitit's signal."""
    mark = tmp_path / 'training'
    grid = write_grid(tmp_path, LONG_GRID.replace('MARK', str(mark)))
    out = tmp_path / 'out'
    only = ['--variants', 'two']
    disturb = (
        f'until [ -e {mark} ]; do sleep .1; done; '
        'set -- $(squeue -h -r -t R -o %i); until [ $# = 2 ]; do '
        'sleep .5; set -- $(squeue -h -r -t R -o %i); done; '
        'sleep 20; scontrol requeue $1; scancel --signal=USR2 $2'
    )
    with subprocess.Popen(['bash', '-c', disturb]):
        assert on_slurm(grid, out, *only) == 0
        wait_until_the_queue_is_empty()
    assert on_slurm(grid, out, *only) == 0
    logs = [path.read_text() for path in out.glob('jobs/*/log.txt')]
    assert len(logs) == 2
    for number in ('SIGTERM', 'SIGUSR2'):
        (log,) = [log for log in logs if f'Stopped by {number}. Saved: ' in log]
        assert 'Training continues from' in log
    assert not list(out.rglob('*.pth'))
    assert run(grid, tmp_path / 'local', '--workers', 2, *only) == 0
    (on_cluster,) = out.glob('*/results.csv')
    (local,) = (tmp_path / 'local').glob('*/results.csv')
    assert on_cluster.read_bytes() == local.read_bytes()


def test_processes_of_one_training_save_before_their_task_is_requeued(
    tmp_path, on_slurm
):
    mark = tmp_path / 'training'
    grid = write_grid(tmp_path, LONG_GRID.replace('MARK', str(mark)))
    out = tmp_path / 'out'
    only = ['--variants', 'two', '--seeds', 0, '--gpus-per-trial', 2]
    disturb = (
        f'until [ -e {mark} ]; do sleep .1; done; '
        'scancel --signal=USR2 $(squeue -h -t R -o %i)'
    )
    with subprocess.Popen(['bash', '-c', disturb]):
        assert on_slurm(grid, out, *only, '--slurm', 'gpus_per_node=0') == 0
        wait_until_the_queue_is_empty()
    assert on_slurm(grid, out, *only, '--slurm', 'gpus_per_node=0') == 0
    (log,) = [path.read_text() for path in out.glob('jobs/*/log.txt')]
    assert 'Stopped by SIGUSR2. Saved: ' in log
    assert 'Training continues from' in log
    assert run(grid, tmp_path / 'local', '--gpus', '0,1', *only) == 0
    (on_cluster,) = out.glob('*/results.csv')
    (local,) = (tmp_path / 'local').glob('*/results.csv')
    assert on_cluster.read_bytes() == local.read_bytes()


def test_the_shell_scripts_train_and_test(tmp_path, cluster):
    pytest.importorskip('mmpretrain')
    env = environment(real=True) | dict(
        GPUS='2', GPUS_PER_NODE='0', NTASKS_PER_NODE='2', CPUS_PER_TASK='1'
    )

    def run_script(name: str, *words) -> str:
        script = ROOT / 'tools' / name
        config = ROOT / 'configs/lm4ve/vit-demo_none_digits.py'
        command = ['bash', script, 'debug', 'demo', config, *words]
        done = run_command(*command, env=env, cwd=tmp_path, timeout=900)
        assert done.returncode == 0, done.stderr
        return done.stdout

    short = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    run_script('slurm_train.sh', tmp_path, *short)
    assert (tmp_path / 'epoch_1.pth').exists()
    printed = run_script('slurm_test.sh', tmp_path / 'epoch_1.pth')
    assert 'accuracy/top1' in printed


#: Trainings -> options of their jobs. The last two are left alone.
JOBS = {
    # The signal comes 20 to 80 seconds after the start: Slurm looks twice a minute.
    'limited': ['--ntasks=2', '--time=3', '--signal=B:USR1@100'],
    'preempted': ['--partition=scavenger'],
    'requeued': [],
    'cancelled': [],
    'whole-2': ['--ntasks=2'],
    'whole-1': [],
}


@pytest.fixture(scope='module')
def disturbed(cluster, tmp_path_factory):
    """Trainings by ``slurm_batch.sh`` that were disturbed: name -> folder and job.

    All run at a time, and end before the tests begin.
    """
    base = tmp_path_factory.mktemp('disturbed')
    script = ROOT / 'tools/slurm_batch.sh'
    folders = {}
    jobs = {}
    with patch.dict(os.environ, environment(real=True)):
        for name, options in JOBS.items():
            folder = base / name
            mark = '' if name.startswith('whole') else str(base / f'{name}-mark')
            path = write_config(folder, mark)
            folders[name] = folder
            words = [path, folder / 'work']
            jobs[name] = submit(script, *options, log=folder / 'log', words=words)
        for name in ('preempted', 'requeued', 'cancelled'):
            wait_until((base / f'{name}-mark').exists)
        subprocess.run(['scancel', jobs['cancelled']], check=True)
        subprocess.run(['scontrol', 'requeue', jobs['requeued']], check=True)
        short = base / 'short.sh'
        short.write_text('#!/bin/sh\n')
        submit(short, '--partition=urgent', f'--ntasks={CPUS}', log=base / 'urgent')
        for job in jobs.values():
            wait_until(functools.partial(has_ended, job))
    return {name: (folders[name], jobs[name]) for name in JOBS}


def has_ended(job: str) -> bool:
    return show(job, 'JobState') in ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT')


@pytest.mark.parametrize(
    'name, signal_name, whole',
    [
        ('limited', 'SIGUSR1', 'whole-2'),
        ('preempted', 'SIGTERM', 'whole-1'),
        ('requeued', 'SIGTERM', 'whole-1'),
    ],
)
def test_disturbed_job_comes_back_and_ends_as_an_undisturbed_one(
    disturbed, name, signal_name, whole
):
    folder, job = disturbed[name]
    log = (folder / 'log').read_text()
    assert show(job, 'JobState') == 'COMPLETED', log
    assert int(show(job, 'Restarts')) >= 1
    assert f'Stopped by {signal_name}. Saved: {folder}/work/iter_' in log
    last = f'work/epoch_{EPOCHS}.pth'
    undisturbed, _ = disturbed[whole]
    assert is_same(state_of(folder / last), state_of(undisturbed / last))
    # The checkpoint of the signal is gone.
    assert [path.name for path in folder.glob('work/*.pth')] == [Path(last).name]


def test_cancelled_job_does_not_come_back(disturbed):
    folder, job = disturbed['cancelled']
    assert show(job, 'JobState') == 'CANCELLED'
    assert show(job, 'Restarts') == '0'
    assert not (folder / 'work' / f'epoch_{EPOCHS}.pth').exists()


def write_config_with(folder: Path, module: str) -> Path:
    """Write a config that imports a helper of ``tests/helpers/runner``."""
    path = write_config(folder)
    line = f"custom_imports['imports'].append('tests.helpers.runner.{module}')"
    path.write_text(f'{path.read_text()}\n{line}\n')
    return path


def test_job_that_failed_stays_failed(cluster, tmp_path):
    path = write_config_with(tmp_path / 'failed', 'early_death')
    script = ROOT / 'tools/slurm_batch.sh'
    log = tmp_path / 'log'
    with patch.dict(os.environ, environment(real=True) | dict(LM4VE_TEST_DIE_BY='9')):
        job = submit(script, '--ntasks=2', log=log, words=[path, tmp_path / 'work'])
        wait_until(functools.partial(has_ended, job))
    assert ') was killed by SIGKILL (out of memory?)' in log.read_text()
    assert show(job, 'JobState') == 'FAILED'
    assert show(job, 'Restarts') == '0'


def test_job_whose_tasks_never_meet_comes_back_three_times(cluster, tmp_path):
    path = write_config_with(tmp_path / 'absent', 'absence')
    script = ROOT / 'tools/slurm_batch.sh'
    log = tmp_path / 'log'
    mark = tmp_path / 'start'
    variables = dict(LM4VE_TEST_ABSENT=str(mark), SAVE_SECONDS='10')
    with patch.dict(os.environ, environment(real=True) | variables):
        job = submit(script, '--ntasks=2', log=log, words=[path, tmp_path / 'work'])
        for start in range(4):
            wait_until(Path(f'{mark}{start}').exists)
            # As before a time limit.
            subprocess.run(['scancel', '--batch', '--signal=USR1', job], check=True)
        wait_until(functools.partial(has_ended, job))
    assert show(job, 'JobState') == 'FAILED'
    assert show(job, 'Restarts') == '3'
    assert 'error: four starts without a new checkpoint in ' in log.read_text()


def test_killed_task_is_named(cluster, tmp_path):
    path = write_config_with(tmp_path / 'killed', 'early_death')
    env = environment(real=True) | dict(
        LM4VE_TEST_DIE_BY='9',
        GPUS='2',
        GPUS_PER_NODE='0',
        NTASKS_PER_NODE='2',
        CPUS_PER_TASK='1',
    )
    script = ROOT / 'tools/slurm_train.sh'
    command = ['bash', script, 'debug', 'killed', path, tmp_path / 'work']
    done = run_command(*command, env=env, timeout=300)
    # srun ends with the highest code: 1 of the killed task, or of the other one 143 where it
    # stops when it is asked to, and 137 where Slurm kills it.
    assert done.returncode in (1, 137, 143)
    assert 'error: rank 1 (' in done.stderr
    assert ') was killed by SIGKILL (out of memory?)' in done.stderr
