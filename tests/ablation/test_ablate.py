"""The tool on a toy: killed, resumed, stopped, failing, and what it writes."""

import errno
import json
import multiprocessing
import os
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

from lm4ve.ablation import Store, load_grid
from lm4ve.ablation import store as stores
from lm4ve.ablation.trial import TimingHook, run_trial, write_spec
from lm4ve.ablation.workers import Workers
from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_runner, run_tool
from lm4ve.runner.same_data import pixel_versions
from tests.helpers import quick_python
from tests.helpers.ablation.command import TOOL, results, run, when_a_trial_hangs
from tests.helpers.ablation.toy import (
    GRID,
    HANG,
    TELL_GPUS,
    TUNE,
    ToyModel,
    write_grid,
)
from tests.helpers.tasks import ROOT

#: Trials in processes of their own import the helpers and the library of this tree.
PATHS = os.pathsep.join((str(ROOT), str(ROOT / 'projects')))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of a grid that has run without a break: four tuning trials, four main."""
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
    wait_for(lambda: len(results(torn)) >= 5)
    hang.touch()
    wait_for(hang.with_suffix('.hanging').exists)
    process.kill()
    process.wait()
    assert len(results(torn)) < 8
    times = modification_times(torn)
    folders = [path for path in torn.glob('trials/*/') if path.is_dir()]
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
    assert len(results(whole)) == 4 + 4
    assert not list(whole.rglob('*.pth'))
    rows = pd.read_csv(whole / 'toy/results.csv')
    assert rows.variant.tolist() == ['one', 'one', 'two', 'two']
    assert rows.seed.tolist() == [0, 1, 0, 1]
    # Two layers: 1 x w + w and w x 1 + 1.
    assert rows.trainable.tolist() == [4, 4, 7, 7]
    timings = pd.read_csv(whole / 'toy/timings.csv')
    assert len(timings) == 4 + 4
    assert (timings.step_seconds > 0).all()
    # The last epoch is what is tested, nothing on the way.
    log = (whole / 'trials' / rows.trial[0] / 'log.txt').read_text()
    assert 'Epoch(test)' in log
    assert 'Epoch(val)' not in log


@pytest.mark.slow
def test_each_variant_gets_its_best_value(whole):
    rows = pd.read_csv(whole / 'toy/results.csv')
    tuning = pd.read_csv(whole / 'toy/tuning.csv')
    best = tuning.groupby('variant')['toy/error'].idxmin()
    assert tuning.chosen.tolist() == tuning.index.isin(best).astype(int).tolist()
    assert rows.value.tolist() == tuning.value[best].repeat(2).tolist()


@pytest.mark.slow
def test_the_table_compares_variants_seed_by_seed(whole):
    rows = pd.read_csv(whole / 'toy/results.csv')
    one, two = rows['toy/error'].to_numpy().reshape(2, 2)
    lines = (whole / 'toy/table.md').read_text().splitlines()
    cells = [cell.strip() for cell in lines[2].split('|')[1:-1]]
    name, count, samples, mean, _, difference, _, p_t, *_ = cells
    assert (name, count, samples) == ('one', '2', '32 of 32')
    assert float(mean) == pytest.approx(np.mean(one), rel=1e-3)
    assert float(difference) == pytest.approx(np.mean(one - two), rel=1e-3)
    assert float(p_t) == pytest.approx(stats.ttest_rel(one, two).pvalue, abs=6e-4)


@pytest.mark.slow
def test_tables_stay_after_an_edit_of_the_grid(tmp_path, whole, capsys):
    path = write_grid(tmp_path, GRID + TUNE)
    assert run(path, whole, '--list') == 0
    listed = capsys.readouterr().out
    assert listed.count('done') == 8
    assert 'to do' not in listed
    # After the edit nothing is done.
    kept = {path: path.read_bytes() for path in whole.glob('toy/*')}
    path = write_grid(tmp_path, f"{GRID}{TUNE}common = {{'model.frozen': True}}\n")
    assert run(path, whole, '--report-only') == 0
    assert 'not run' in capsys.readouterr().out
    assert kept == {path: path.read_bytes() for path in whole.glob('toy/*')}


@pytest.mark.slow
def test_a_failing_trial_stops_no_other(tmp_path, capsys):
    text = GRID.replace(
        "'one': dict(options={'model.width': 1})",
        "'broken': dict(options={'model.fail': True})",
    )
    path = write_grid(tmp_path, text.replace('seeds = 2', 'seeds = (4, 7)'))
    assert run(path, tmp_path / 'out', '--workers', 2) == 2
    out, err = capsys.readouterr()
    assert '2 trial(s) failed' in err
    assert 'main broken, seed 4' in err
    assert 'the toy is broken' in err
    assert 'Unfinished: 2 trials' in out
    logs = [line.strip() for line in err.splitlines() if 'log.txt' in line]
    assert 'RuntimeError: the toy is broken' in Path(logs[0]).read_text()
    assert len(results(tmp_path / 'out')) == 2
    table = (tmp_path / 'out/toy/table.md').read_text()
    assert '| broken | 0 | not run | not run |' in table
    assert '|  |' not in table
    assert 'for 0 comparison(s)' in table  # none was tested

    # A part of the grid; what failed is tried again.
    assert run(path, tmp_path / 'out', '--variants', 'broken', '--seeds', 7) == 2
    assert '1 trial(s) failed' in capsys.readouterr().err


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


def test_a_running_trial_is_neither_cleared_nor_run_twice(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(stores, 'ORPHANS', 0.2)
    store = Store(tmp_path)
    trial = load_grid(write_grid(tmp_path)).main({})[0]
    folder = store.clear(trial)
    with stores.trial_lock(folder, 0):
        with pytest.raises(UserError, match='earlier command still writes'):
            store.clear(trial)
        assert folder.exists()
    assert not list(store.clear(trial).iterdir())
    (folder / 'result.json').write_text('{}')
    run_trial(write_spec(trial, folder, False))
    assert 'has a result already' in capsys.readouterr().out
    assert (folder / 'result.json').read_text() == '{}'


def test_a_specification_in_another_trials_folder_is_not_run(tmp_path):
    trial = load_grid(write_grid(tmp_path)).main({})[0]
    other = Store(tmp_path).clear(trial).with_name('0123456789abcdef')
    other.mkdir()
    with pytest.raises(UserError, match='of another trial'):
        run_trial(write_spec(trial, other, False))
    assert not (other / 'run').exists()


def test_stopped_trial_continues_to_an_undisturbed_trials_result(tmp_path, monkeypatch):
    trial = load_grid(write_grid(tmp_path)).main({})[0]
    whole = Store(tmp_path / 'whole')
    run_trial(write_spec(trial, whole.clear(trial), False))
    store = Store(tmp_path / 'stopped')
    folder = store.clear(trial)
    # Eight iterations in all; stopped in the sixth, after the first epoch's checkpoint.
    steps = []

    def stop(model, *args, **kwargs):
        steps.append(1)
        if len(steps) == 6:
            os.kill(os.getpid(), signal.SIGUSR1)
        return train_step(model, *args, **kwargs)

    train_step = ToyModel.train_step
    monkeypatch.setattr(ToyModel, 'train_step', stop)
    spec = write_spec(trial, folder, False)
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: run_trial(spec))
    assert end.value.code == 138
    assert (folder / 'run/iter_6.pth').exists()
    assert store.result(trial) is None
    # The command clears the folder, but for the training.
    run_trial(write_spec(trial, store.clear(trial), False))
    assert len(steps) == 8
    result = store.result(trial)
    expected = whole.result(trial)
    assert result['metrics'] == expected['metrics']
    assert not list(folder.rglob('*.pth'))

    # Another number of processes makes other batches.
    (folder / 'run/iter_6.pth').touch()
    assert list(store.clear(trial).rglob('*.pth'))
    # The command may have been killed before it wrote the specification.
    assert list(store.clear(trial).rglob('*.pth'))
    assert not list(Store(store.work_dir, 2).clear(trial).iterdir())


def test_a_training_on_other_pixels_does_not_continue(tmp_path):
    trial = load_grid(write_grid(tmp_path)).main({})[0]
    store = Store(tmp_path / 'out')
    spec = write_spec(trial, store.clear(trial), False)
    (spec.parent / 'run').mkdir()
    assert (store.clear(trial) / 'run').exists()
    content = json.loads(spec.read_text())
    content['pixel_versions']['pillow'] = '0.1'
    spec.write_text(json.dumps(content))
    assert not list(store.clear(trial).iterdir())


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


def complete_result(trial) -> dict:
    """Return a result of a trial, with every field that is checked."""
    return dict(
        id=trial.id,
        metrics=dict(a=1),
        scored=20,
        total=20,
        trainable=1,
        frozen=0,
        step_seconds=0.1,
        wall_seconds=1.0,
        world_size=1,
    )


def test_two_commands_in_one_folder_are_one_too_many(tmp_path, capsys):
    path = write_grid(tmp_path)
    with Store(tmp_path / 'out').lock():
        assert run(path, tmp_path / 'out') == 2
    assert 'Another run works here' in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_first(tmp_path, capsys):
    (tmp_path / 'out').touch()
    assert run(write_grid(tmp_path), tmp_path / 'out') == 2
    assert "--work-dir='" in capsys.readouterr().err


def test_a_full_disk_is_the_reason_of_a_failure(tmp_path, monkeypatch):
    trial = load_grid(write_grid(tmp_path)).main({})[0]
    executor = Workers(Store(tmp_path / 'out'))
    log = executor.store.clear(trial) / 'log.txt'
    log.write_text('Epoch 1')
    assert executor.outcome(trial, 'failed').reason == 'failed: Epoch 1'

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', fail)
    assert executor.outcome(trial, 'failed').reason.endswith('No space left on device')


def test_only_a_complete_result_of_its_own_counts(tmp_path):
    trial = load_grid(write_grid(tmp_path)).main({})[0]
    store = Store(tmp_path / 'out')
    path = store.clear(trial) / 'result.json'
    whole = complete_result(trial)
    others = [
        dict(whole, id='other'),
        dict(whole, world_size=2),
        dict(whole, metrics=1),
        dict(whole, metrics=dict(a='1')),
        dict(whole, wall_seconds='1'),
        dict(whole, scored=None),
        dict(id=trial.id),
        [],
    ]
    damaged = ['', '{"id": ', '[' * 100_000]
    damaged += [json.dumps(other) for other in others]
    for text in damaged:
        path.write_text(text)
        assert store.result(trial) is None
    path.write_bytes(b'\xff')
    assert store.result(trial) is None
    path.write_text(json.dumps(whole))
    assert store.result(trial) == whole


def test_a_resumed_grid_warns_of_other_pixel_libraries(tmp_path, capsys):
    trial = load_grid(write_grid(tmp_path)).main({})[0]
    executor = Workers(Store(tmp_path / 'out'))
    path = executor.store.clear(trial) / 'result.json'
    result = dict(complete_result(trial), pixel_versions=pixel_versions())
    path.write_text(json.dumps(result))
    assert executor.run([trial], str) == []
    assert 'pillow' not in capsys.readouterr().out
    result['pixel_versions']['pillow'] = '0.1'
    path.write_text(json.dumps(result))
    assert executor.run([trial], str) == []
    assert 'pillow 0.1' in capsys.readouterr().out


@pytest.mark.slow
def test_a_trial_starts_with_its_gpu(tmp_path, monkeypatch):
    """Torch reads the variable when it is imported, so that a fork's would be too late."""
    monkeypatch.setenv('PYTHONPATH', PATHS)
    monkeypatch.setenv(TELL_GPUS, '1')
    words = ['--seeds', 0, '--gpus', '4,5', '--workers', 2]
    assert run(write_grid(tmp_path), tmp_path / 'out', *words) == 0
    told = set()
    for log in (tmp_path / 'out').glob('trials/*/log.txt'):
        told |= {line for line in log.read_text().splitlines() if 'CUDA_VIS' in line}
    assert told == {"['CUDA_VISIBLE_DEVICES=4']", "['CUDA_VISIBLE_DEVICES=5']"}


@pytest.mark.slow
def test_results_of_another_world_size_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', PATHS)
    monkeypatch.setattr(sys, 'executable', str(quick_python.folder() / 'python'))
    path = write_grid(tmp_path)
    words = ['--variants', 'two', '--seeds', 0, '--gpus', '0,1', '--gpus-per-trial', 2]
    assert run(path, tmp_path / 'out', *words) == 0
    log = next((tmp_path / 'out').glob('trials/*/log.txt')).read_text()
    # Four batches in an epoch, shared by two.
    assert 'Epoch(train) [2][2/2]' in log
    trial = load_grid(path).main({})[2]
    assert Store(tmp_path / 'out', 2).result(trial) is not None
    assert Store(tmp_path / 'out').result(trial) is None
