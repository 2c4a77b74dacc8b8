"""Grids and trainings on a real Slurm of one node."""

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from lm4ve.ablation import slurm
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
    """Run the tool on the cluster; jobs find the toy, and the queue is looked at often."""
    monkeypatch.setattr(slurm, 'INTERVAL', 0.3)
    monkeypatch.setattr(slurm, 'DELAY', 1.0)
    monkeypatch.setenv('PYTHONPATH', str(ROOT), prepend=os.pathsep)
    return lambda *words: run(*words, '--executor', 'slurm', '--workers', 2)


@pytest.fixture
def hang(tmp_path, monkeypatch):
    """A file: while it is there, trials hang."""
    file = tmp_path / 'hang'
    file.touch()
    monkeypatch.setenv(HANG, str(file))
    return file


def jobs_of(out: Path) -> dict[Path, str]:
    """Return the Slurm jobs that a grid noted, by the notes' files."""
    notes = out.glob('trials/*/slurm.json')
    return {note: json.loads(note.read_text())['job'] for note in notes}


def test_a_cancelled_grid_resumes_to_a_local_grids_results(
    tmp_path, on_slurm, hang, capsys
):
    grid = write_grid(tmp_path, GRID)
    out = tmp_path / 'out'
    with when_a_trial_hangs(hang, 'scancel --user=root'):
        assert on_slurm(grid, out) == 2
    assert 'ended (Slurm job ' in capsys.readouterr().err
    hang.unlink()
    assert on_slurm(grid, out) == 0
    assert len(results(out)) == 4
    assert run(grid, tmp_path / 'local', '--workers', 2) == 0
    (on_cluster,) = out.glob('*/results.csv')
    (local,) = (tmp_path / 'local').glob('*/results.csv')
    assert on_cluster.read_bytes() == local.read_bytes()


def test_a_stopped_command_finds_its_requeued_jobs_again(
    tmp_path, on_slurm, hang, capsys
):
    grid = write_grid(tmp_path, GRID)
    out = tmp_path / 'out'
    with patch.object(slurm.SlurmJobs, '_wait', side_effect=KeyboardInterrupt):
        assert on_slurm(grid, out, '--seeds', 0) == 130
    printed = capsys.readouterr().out
    assert '2 trials stay in the queue of Slurm' in printed
    assert 'scancel ' in printed
    jobs = jobs_of(out)
    requeue = (
        f'rm {hang}; for j in $(squeue -h -t R -o %i); do scontrol requeue $j; done'
    )
    with when_a_trial_hangs(hang, requeue):
        assert on_slurm(grid, out, '--seeds', 0) == 0
    assert '2 trials are in the queue of Slurm already' in capsys.readouterr().out
    assert len(results(out)) == 2
    assert jobs_of(out) == jobs


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
