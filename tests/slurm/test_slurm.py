"""Grids and trainings on a real Slurm of one node."""

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.helpers.ablation.command import results, run, when_a_trial_hangs
from tests.helpers.ablation.toy import GRID, HANG, write_grid
from tests.helpers.processes import environment
from tests.helpers.slurm import reason_against, running
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_command

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
pytest.importorskip('submitit')


@pytest.fixture(scope='module')
def cluster():
    if reason := reason_against():
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
    """Run the tool on the cluster; jobs find the toy, and the queue is looked at often."""
    from lm4ve.ablation import slurm

    monkeypatch.setattr(slurm, 'INTERVAL', 0.3)
    monkeypatch.setattr(slurm, 'DELAY', 1.0)
    monkeypatch.setenv('PYTHONPATH', str(ROOT), prepend=os.pathsep)
    return lambda *words: run(*words, '--executor', 'slurm', '--workers', 2)


def test_a_cancelled_grid_resumes_to_a_local_grids_results(
    tmp_path, on_slurm, monkeypatch, capsys
):
    grid, hang, out = write_grid(tmp_path, GRID), tmp_path / 'hang', tmp_path / 'out'
    hang.touch()
    monkeypatch.setenv(HANG, str(hang))
    with when_a_trial_hangs(hang, 'scancel --user=root'):
        assert on_slurm(grid, out) == 2
    assert 'ended (Slurm job ' in capsys.readouterr().err
    hang.unlink()
    assert on_slurm(grid, out) == 0
    assert len(results(out)) == 4
    assert run(grid, tmp_path / 'local', '--workers', 2) == 0
    mine, local = (next(f.glob('*/results.csv')) for f in (out, tmp_path / 'local'))
    assert mine.read_bytes() == local.read_bytes()


def test_a_stopped_command_finds_its_requeued_jobs_again(
    tmp_path, on_slurm, monkeypatch, capsys
):
    from lm4ve.ablation import slurm

    grid, hang, out = write_grid(tmp_path, GRID), tmp_path / 'hang', tmp_path / 'out'
    hang.touch()
    monkeypatch.setenv(HANG, str(hang))
    with patch.object(slurm.SlurmJobs, '_wait', side_effect=KeyboardInterrupt):
        assert on_slurm(grid, out, '--seeds', 0) == 130
    said = capsys.readouterr().out
    assert '2 trials stay in the queue of Slurm' in said and 'scancel ' in said
    notes = {
        p: json.loads(p.read_text())['job'] for p in out.glob('trials/*/slurm.json')
    }
    requeue = (
        f'rm {hang}; for j in $(squeue -h -t R -o %i); do scontrol requeue $j; done'
    )
    with when_a_trial_hangs(hang, requeue):
        assert on_slurm(grid, out, '--seeds', 0) == 0
    assert '2 trials are in the queue of Slurm already' in capsys.readouterr().out
    assert len(results(out)) == 2
    assert {p: json.loads(p.read_text())['job'] for p in notes} == notes


def test_the_shell_scripts_train_and_test(tmp_path, cluster):
    pytest.importorskip('mmpretrain')
    config, checkpoint = (
        ROOT / 'configs/lm4ve/vit-demo_none_digits.py',
        tmp_path / 'epoch_1.pth',
    )
    env = environment(real=True) | dict(
        GPUS='2', GPUS_PER_NODE='0', NTASKS_PER_NODE='2'
    )
    env['CPUS_PER_TASK'] = '1'
    short = '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9'
    for script, words in (('train', [tmp_path, *short]), ('test', [checkpoint])):
        words = ROOT / f'tools/slurm_{script}.sh', 'debug', 'demo', config, *words
        done = run_command('bash', *words, env=env, cwd=tmp_path, timeout=900)
        assert done.returncode == 0, done.stderr
        assert checkpoint.exists()
    assert 'accuracy/top1' in done.stdout
