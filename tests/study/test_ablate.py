"""The tool on a toy: killed, resumed, stopped, failing, and what it writes."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mmengine.config import Config
from scipy import stats

from lm4ve.errors import UserError
from lm4ve.files import sole_use
from lm4ve.runner.command_line import build_runner, run_tool
from lm4ve.runner.same_data import VERSIONS, pixel_versions
from lm4ve.study import store as stores
from lm4ve.study.pool import Pool
from lm4ve.study.progress import Progress
from lm4ve.study.report import OWNER
from lm4ve.study.run_job import run_job
from lm4ve.study.store import Result, Store, write_result
from lm4ve.study.trainings.grid_files import load_grid
from lm4ve.study.trainings.stored import read_grid_study, write_grid_study
from lm4ve.study.trainings.study import GridStudy
from lm4ve.study.trainings.training import TimingHook
from tests.helpers import quick_python
from tests.helpers.grids.command import TOOL, results, run, when_a_trial_hangs
from tests.helpers.grids.toy import (
    GRID,
    HANG,
    TELL_GPUS,
    TUNE,
    ToyModel,
    write_grid,
)
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_lm4ve

#: Trials in processes of their own import the helpers and the library of this tree.
PATHS = os.pathsep.join((str(ROOT), str(ROOT / 'projects')))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of a grid that has run without a break."""
    folder = tmp_path_factory.mktemp('whole')
    assert run(write_grid(folder, GRID + TUNE), folder / 'out', '--workers', 2) == 0
    return folder / 'out'


def wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def modification_times(folder) -> dict:
    """Return result file -> when it was written."""
    return {path: path.stat().st_mtime_ns for path in results(folder)}


@pytest.mark.slow
def test_a_killed_grid_resumes_to_equal_tables(tmp_path, whole):
    grid = write_grid(tmp_path, GRID + TUNE)
    torn = tmp_path / 'torn'
    hang = tmp_path / 'hang'
    command = [sys.executable, TOOL, grid, '--work-dir', torn, '--workers', '2']
    env = {**os.environ, 'PYTHONPATH': PATHS, HANG: str(hang)}
    none = subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, stdout=none, stderr=none)
    # In the main trials, and in the middle of one.
    wait_for(lambda: len(results(torn)) >= 13)
    hang.touch()
    wait_for(hang.with_suffix('.hanging').exists)
    process.kill()
    process.wait()
    assert len(results(torn)) < 16
    times = modification_times(torn)
    folders = [path for path in torn.glob('jobs/*/') if path.is_dir()]
    unfinished = [path for path in folders if path / 'result.json' not in times]
    left_over = unfinished[0] / 'left-over'
    left_over.touch()
    assert run(grid, torn, '--workers', 2) == 0
    assert not left_over.exists()
    assert times.items() <= modification_times(torn).items()
    for name in ('results.csv', 'tuning.csv'):
        assert (torn / 'toy' / name).read_bytes() == (whole / 'toy' / name).read_bytes()
    assert (torn / 'toy/plot.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.slow
def test_tables_hold_the_results_of_trials(whole):
    assert len(results(whole)) == 4 + 8 + 4
    assert not list(whole.rglob('*.pth'))
    rows = pd.read_csv(whole / 'toy/results.csv')
    assert rows.variant.tolist() == ['one', 'one', 'two', 'two']
    assert rows.seed.tolist() == [0, 1, 0, 1]
    # Two layers: 1 x w + w and w x 1 + 1.
    assert rows.trainable.tolist() == [4, 4, 7, 7]
    timings = pd.read_csv(whole / 'toy/timings.csv')
    assert len(timings) == 4 + 8 + 4
    assert (timings.step_seconds > 0).all()
    # The last epoch is what is tested, nothing on the way.
    log = (whole / 'jobs' / rows.key[0] / 'log.txt').read_text()
    assert 'Epoch(test)' in log
    assert 'Epoch(val)' not in log


@pytest.mark.slow
def test_each_seed_takes_its_own_best_value(whole):
    rows = pd.read_csv(whole / 'toy/results.csv')
    draws = pd.read_csv(whole / 'toy/tuning.csv').query("stage == 'draw'")
    assert draws.kept.all() and len(draws) == 8
    best = draws.loc[draws.groupby(['variant', 'seed'])['toy/error'].idxmin()]
    assert rows.value.tolist() == best.value.tolist()


@pytest.mark.slow
def test_the_table_compares_variants_seed_by_seed(whole):
    rows = pd.read_csv(whole / 'toy/results.csv')
    one, two = rows['toy/error'].to_numpy().reshape(2, 2)
    lines = (whole / 'toy/table.md').read_text().splitlines()
    cells = [cell.strip() for cell in lines[2].split('|')[1:-1]]
    name, mean, difference, *_ = cells
    assert name == 'one'
    assert float(mean.split(' ')[0]) == pytest.approx(np.mean(one), rel=1e-3)
    # The error is better if it is lower: a gain of the variant over the reference.
    gain = two - one
    assert float(difference) == pytest.approx(gain.mean(), rel=1e-3)
    (found,) = pd.read_csv(whole / 'toy/comparisons.csv').itertuples()
    assert (found.variant, found.against, found.seeds) == ('one', 'two', 2)
    interval = stats.ttest_1samp(gain, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(interval)


@pytest.mark.slow
def test_a_report_follows_from_its_own_files(tmp_path, whole, capsys):
    path = write_grid(tmp_path, GRID + TUNE)
    assert run(path, whole, '--list') == 0
    listed = capsys.readouterr().out
    assert listed.count('done') == 4 + 8 + 4
    assert 'to do' not in listed
    stored = {'study.json', 'rule.txt', 'plan.json', 'pictures.csv'}
    stored |= {'results.csv', 'tuning.csv', 'timings.csv'}
    copy = tmp_path / 'copy/toy'
    shutil.copytree(whole / 'toy', copy)
    for other in copy.iterdir():
        if other.name not in stored:
            other.unlink()
    path.with_name('config.py').unlink()
    assert run(path, tmp_path / 'copy', '--report-only') == 0
    for file in copy.iterdir():
        assert file.read_bytes() == (whole / 'toy' / file.name).read_bytes()
    names = {file.name for file in (whole / 'toy').iterdir()}
    assert names - {file.name for file in copy.iterdir()} == {OWNER}


@pytest.mark.slow
def test_more_seeds_are_a_second_look_and_the_plan_stays(tmp_path, capsys):
    path = write_grid(tmp_path)
    assert run(path, tmp_path / 'out', '--seeds', 0) == 0
    (first, *_) = (tmp_path / 'out/toy/sentence.txt').read_text().splitlines()
    write_grid(tmp_path, GRID.replace("'one'", "'three'"))
    assert run(path, tmp_path / 'out') == 0
    sentences = (tmp_path / 'out/toy/sentence.txt').read_text().splitlines()
    assert sentences[-1] == f'A second look: the first, of 1 seed, said: {first}'
    planned = pd.read_csv(tmp_path / 'out/toy/comparisons.csv')
    assert planned.variant.tolist() == ['three', 'one']
    assert planned.confidence.tolist() == [0.975, 0.975]
    assert "Planned and without scores: 'one'" in capsys.readouterr().out


def test_a_study_killed_before_its_first_result_has_planned(tmp_path, monkeypatch):
    path = write_grid(tmp_path)

    def kill(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pool, 'run', kill)
        with pytest.raises(KeyboardInterrupt):
            run_lm4ve('ablate', [str(path), '--work-dir', str(tmp_path / 'out')])
    study = GridStudy(
        load_grid(write_grid(tmp_path, GRID.replace("'one'", "'three'"))),
        Store(tmp_path / 'out/jobs'),
    )
    for job in study.tests():
        study.store.prepare(job)
        metrics = {'toy/error': 0.1 + job.seed}
        facts = dict(trainable=1, frozen=0, step_seconds=0.1)
        result = Result(metrics, 20, 20, 1.0, facts=facts)
        write_result(result, study.store.folder_of(job))
    folder = tmp_path / 'out/toy'
    assert write_grid_study(study, 'rule', 'command', folder)
    pairs = read_grid_study(folder).pairs
    assert pairs == [('three', 'two'), ('one', 'two')]


@pytest.mark.slow
def test_a_failing_trial_stops_no_other(tmp_path, capsys):
    text = GRID.replace(
        "'one': dict(options={'model.width': 1})",
        "'broken': dict(options={'model.fail': True})",
    )
    path = write_grid(tmp_path, text.replace('seeds = 2', 'seeds = (4, 7)'))
    assert run(path, tmp_path / 'out', '--workers', 2) == 2
    out, err = capsys.readouterr()
    assert '2 job(s) failed' in err
    assert 'test broken, seed 4' in err
    assert 'the toy is broken' in err
    assert 'Unfinished: 2 trainings' in out
    logs = [line.strip() for line in err.splitlines() if 'log.txt' in line]
    assert 'RuntimeError: the toy is broken' in Path(logs[0]).read_text()
    assert len(results(tmp_path / 'out')) == 2
    table = (tmp_path / 'out/toy/table.md').read_text()
    assert '| broken | failed |' in table
    assert "Failed: 2 training(s) of 'broken': " in out
    shutil.rmtree(tmp_path / 'out/jobs')
    (tmp_path / 'out/toy/table.md').unlink()
    assert run(path, tmp_path / 'out', '--report-only') == 0
    assert (tmp_path / 'out/toy/table.md').read_text() == table
    assert 'open: no scores' in table

    # A part of the grid; what failed is tried again.
    assert run(path, tmp_path / 'out', '--variants', 'broken', '--seeds', 7) == 2
    assert '1 job(s) failed' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('kind, code', [('SIGTERM', 143), ('SIGINT', 130)])
def test_a_stopped_command_stops_its_trials(tmp_path, monkeypatch, kind, code):
    monkeypatch.setenv(HANG, str(tmp_path / 'hang'))
    (tmp_path / 'hang').touch()
    path = write_grid(tmp_path)
    with when_a_trial_hangs(tmp_path / 'hang', f'kill -s {kind[3:]} {os.getpid()}'):
        assert run(path, tmp_path / 'out', '--workers', 2) == code
    assert not results(tmp_path / 'out')
    assert not multiprocessing.active_children()


def job_of(folder):
    """Return the first training of the toy's grid."""
    return load_grid(write_grid(folder)).tests({})[0]


def test_a_running_job_is_neither_cleared_nor_run_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stores, 'ORPHANS', 0.2)
    store = Store(tmp_path)
    job = job_of(tmp_path)
    store.prepare(job)
    folder = store.folder_of(job)
    (folder / 'left-over').touch()
    with sole_use(stores.lock_of(folder)):
        with pytest.raises(UserError, match='Another run works here'):
            store.prepare(job)
        assert (folder / 'left-over').exists()
    store.prepare(job)
    assert [path.name for path in folder.iterdir()] == ['spec.json']
    write_result(complete_result(), folder)
    run_job(folder)
    assert 'has a result already' in capsys.readouterr().out
    # Another process may write it after a command has looked.
    store.prepare(job)
    assert store.result(job) == complete_result()


def test_a_specification_in_another_jobs_folder_is_not_run(tmp_path):
    job = job_of(tmp_path)
    store = Store(tmp_path)
    store.prepare(job)
    other = store.folder_of(job).with_name('0123456789abcdef')
    store.folder_of(job).rename(other)
    with pytest.raises(UserError, match='of another job'):
        run_job(other)
    # The name alone does not make it another one.
    spec = json.loads((other / 'spec.json').read_text())
    (other / 'spec.json').write_text(json.dumps(dict(spec, key=other.name)))
    with pytest.raises(UserError, match='has changed since'):
        run_job(other)
    assert not (other / 'run').exists()


def test_stopped_training_continues_to_an_undisturbed_ones_result(
    tmp_path, monkeypatch
):
    job = job_of(tmp_path)
    whole = Store(tmp_path / 'whole')
    whole.prepare(job)
    run_job(whole.folder_of(job))
    store = Store(tmp_path / 'stopped')
    store.prepare(job)
    folder = store.folder_of(job)
    # Eight iterations in all; stopped in the sixth, after the first epoch's checkpoint.
    steps = []

    def stop(model, *args, **kwargs):
        steps.append(1)
        if len(steps) == 6:
            os.kill(os.getpid(), signal.SIGUSR1)
        return train_step(model, *args, **kwargs)

    train_step = ToyModel.train_step
    monkeypatch.setattr(ToyModel, 'train_step', stop)
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: run_job(folder))
    assert end.value.code == 143
    assert (folder / 'run/iter_6.pth').exists()
    assert store.result(job) is None
    # The command clears the folder, but for the training.
    store.prepare(job)
    run_job(folder)
    assert len(steps) == 8
    assert store.result(job).metrics == whole.result(job).metrics
    assert not list(folder.rglob('*.pth'))


@pytest.mark.slow
def test_a_failing_job_of_a_task_of_slurm_stops_no_other(tmp_path, monkeypatch):
    slurm = pytest.importorskip('lm4ve.study.slurm')
    monkeypatch.setenv('PYTHONPATH', PATHS)
    store = Store(tmp_path / 'out')
    jobs = load_grid(write_grid(tmp_path)).tests({})[:2]
    for job in jobs:
        store.prepare(job)
    failing, other = [store.folder_of(job) for job in jobs]
    (failing / 'spec.json').unlink()
    with pytest.raises(SystemExit) as end:
        slurm.Task(threads=1, distributed=False)([failing, other])
    assert end.value.code == 2
    assert [store.result(job) is None for job in jobs] == [True, False]


#: Stand-ins for Slurm's commands: the queue's tasks, or no answer, stand in a file.
SQUEUE = """#!/bin/sh
if [ -e FOLDER/broken ]; then echo 'slurm_load_jobs error' >&2; exit 1; fi
cat FOLDER/queue
"""
SBATCH = """#!/bin/sh
echo >> FOLDER/submitted
echo 7 > FOLDER/queue
echo 'Submitted batch job 7'
"""


@pytest.fixture
def slurm_pool(tmp_path, monkeypatch):
    """A pool of a Slurm whose queue is the file ``queue``, empty at first."""
    slurm = pytest.importorskip('lm4ve.study.slurm')
    for name, text in (('squeue', SQUEUE), ('sbatch', SBATCH)):
        (tmp_path / name).write_text(text.replace('FOLDER', str(tmp_path)))
        (tmp_path / name).chmod(0o755)
    # submitit looks for it.
    (tmp_path / 'srun').touch(0o755)
    (tmp_path / 'queue').touch()
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    return slurm.SlurmPool(Store(tmp_path / 'out'))


def run_on(pool, job) -> list:
    return pool.run([job], Progress({job.variant: 1.0}, {job.variant: 1}, 1))


def submit_to(pool, job) -> None:
    with pytest.raises(SystemExit) as end:
        run_on(pool, job)
    assert end.value.code == 0


def count_submitted(folder) -> int:
    return len((folder / 'submitted').read_text().splitlines())


def test_command_submits_a_job_once_and_ends(tmp_path, slurm_pool, capsys):
    job = job_of(tmp_path)
    submit_to(slurm_pool, job)
    submit_to(slurm_pool, job)
    assert count_submitted(tmp_path) == 1
    assert 'scancel 7' in capsys.readouterr().out
    write_result(complete_result(), slurm_pool.store.folder_of(job))
    (tmp_path / 'queue').write_text('')
    assert run_on(slurm_pool, job) == []


def test_slurm_that_does_not_answer_costs_no_job(tmp_path, slurm_pool):
    job = job_of(tmp_path)
    submit_to(slurm_pool, job)
    (tmp_path / 'broken').touch()
    with pytest.raises(UserError, match='slurm_load_jobs error. Its jobs go on'):
        run_on(slurm_pool, job)
    (tmp_path / 'broken').unlink()
    submit_to(slurm_pool, job)
    assert count_submitted(tmp_path) == 1


def test_job_that_failed_on_slurm_is_told_of_and_then_submitted_again(
    tmp_path, slurm_pool
):
    job = job_of(tmp_path)
    submit_to(slurm_pool, job)
    (tmp_path / 'queue').write_text('')
    (failure,) = run_on(slurm_pool, job)
    assert 'ended (Slurm job 7)' in failure.reason
    submit_to(slurm_pool, job)
    assert count_submitted(tmp_path) == 2


def test_a_training_on_other_pixels_does_not_continue(tmp_path):
    job = job_of(tmp_path)
    store = Store(tmp_path / 'out')
    store.prepare(job)
    folder = store.folder_of(job)
    (folder / 'run').mkdir()
    store.prepare(job)
    assert (folder / 'run').exists()
    content = json.loads((folder / 'spec.json').read_text())
    content['spec'][VERSIONS]['pillow'] = '0.1'
    (folder / 'spec.json').write_text(json.dumps(content))
    store.prepare(job)
    assert not (folder / 'run').exists()


@pytest.mark.parametrize('resume', [True, False])
def test_only_a_resumed_trial_counts_the_seconds_of_its_checkpoint(tmp_path, resume):
    path = write_grid(tmp_path).with_name('config.py')
    cfg = Config.fromfile(path)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.train_cfg.max_epochs = 1
    timing = TimingHook()
    timing._before = 1000.0
    runner = build_runner(cfg)
    runner.register_hook(timing)
    runner.train()
    cfg.load_from = str(tmp_path / 'run/epoch_1.pth')
    cfg.resume = resume
    cfg.train_cfg.max_epochs = 2
    timing = TimingHook()
    runner = build_runner(cfg)
    runner.register_hook(timing)
    runner.train()
    assert (timing.seconds > 1000) == resume


def complete_result(**facts) -> Result:
    """Return a result with every field."""
    return Result(dict(a=1), scored=20, total=20, seconds=1.0, facts=facts)


def test_two_commands_in_one_folder_are_one_too_many(tmp_path, capsys):
    path = write_grid(tmp_path)
    with Store(tmp_path / 'out/jobs').lock('--work-dir'):
        assert run(path, tmp_path / 'out') == 2
    assert 'Another run works here' in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_first(tmp_path, capsys):
    (tmp_path / 'out').touch()
    assert run(write_grid(tmp_path), tmp_path / 'out') == 2
    assert "--work-dir='" in capsys.readouterr().err


def test_a_full_disk_is_the_reason_of_a_failure(tmp_path, monkeypatch):
    job = job_of(tmp_path)
    pool = Pool(Store(tmp_path / 'out'))
    pool.store.prepare(job)
    (pool.store.folder_of(job) / 'log.txt').write_text('Epoch 1')
    assert pool.outcome(job, 'failed').reason == 'failed: Epoch 1'

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', fail)
    assert pool.outcome(job, 'failed').reason.endswith('No space left on device')


def test_only_a_complete_result_of_its_own_counts(tmp_path):
    job = job_of(tmp_path)
    store = Store(tmp_path / 'out')
    store.prepare(job)
    write_result(complete_result(), store.folder_of(job))
    path = store.folder_of(job) / 'result.json'
    whole = json.loads(path.read_text())
    others = [
        dict(whole, key='other'),
        dict(whole, metrics=1),
        dict(whole, metrics=dict(a='1')),
        dict(whole, seconds='1'),
        dict(whole, scored=None),
        dict(whole, predicted='00'),
        dict(key=job.key),
        [],
    ]
    damaged = ['', '{"key": ', '[' * 100_000]
    damaged += [json.dumps(other) for other in others]
    for text in damaged:
        path.write_text(text)
        assert store.result(job) is None
    path.write_bytes(b'\xff')
    assert store.result(job) is None
    path.write_text(json.dumps(whole))
    assert store.result(job) == complete_result()


def test_a_resumed_grid_warns_of_other_pixel_libraries(tmp_path, capsys):
    job = job_of(tmp_path)
    pool = Pool(Store(tmp_path / 'out'))
    pool.store.prepare(job)
    versions = pixel_versions()
    for pillow, is_named in ((versions['pillow'], False), ('0.1', True)):
        result = complete_result(pixel_versions=dict(versions, pillow=pillow))
        write_result(result, pool.store.folder_of(job))
        progress = Progress({job.variant: 1.0}, {job.variant: 1}, 1)
        assert pool.run([job], progress) == []
        assert ('pillow 0.1' in capsys.readouterr().out) == is_named


@pytest.mark.slow
def test_a_trial_starts_with_its_gpu(tmp_path, monkeypatch):
    """Torch reads the variable when it is imported, so that a fork's would be too late."""
    monkeypatch.setenv('PYTHONPATH', PATHS)
    monkeypatch.setenv(TELL_GPUS, '1')
    words = ['--seeds', 0, '--gpus', '4,5', '--workers', 2]
    assert run(write_grid(tmp_path), tmp_path / 'out', *words) == 0
    told = set()
    for log in (tmp_path / 'out').glob('jobs/*/log.txt'):
        told |= {line for line in log.read_text().splitlines() if 'CUDA_VIS' in line}
    assert told == {"['CUDA_VISIBLE_DEVICES=4']", "['CUDA_VISIBLE_DEVICES=5']"}


@pytest.mark.slow
def test_results_of_another_world_size_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', PATHS)
    monkeypatch.setattr(sys, 'executable', str(quick_python.folder() / 'python'))
    path = write_grid(tmp_path)
    words = ['--variants', 'two', '--seeds', 0, '--gpus', '0,1', '--gpus-per-trial', 2]
    assert run(path, tmp_path / 'out', *words) == 0
    log = next((tmp_path / 'out').glob('jobs/*/log.txt')).read_text()
    # Four batches in an epoch, shared by two.
    assert 'Epoch(train) [2][2/2]' in log
    store = Store(tmp_path / 'out/jobs')
    assert store.result(load_grid(path).tests({}, processes=2)[2]) is not None
    assert store.result(load_grid(path).tests({})[2]) is None
