"""Two CPU processes train as one does, and again after one is killed: gloo, DDP, the scripts."""

import json
import shutil
import signal
import subprocess
import time
import weakref
from pathlib import Path

import pytest
import torch

from lm4ve.runner.command_line import run_tool
from tests.helpers.processes import environment
from tests.helpers.runner.recording import config, recorded
from tests.helpers.tasks import ROOT
from tests.helpers.tools import ERRORS_ONLY, run_command, run_tool_here

pytest.importorskip('mmpretrain')


def script(name: str, *args, real: bool = False, **variables) -> dict[str, float]:
    """Run one of our shell scripts; return its lines of errors, and when each came."""
    env = environment(real) | variables
    words = ['bash', ROOT / 'tools' / name, *map(str, args)]
    job = subprocess.Popen(words, env=env, **ERRORS_ONLY)
    times = {}
    for line in job.stderr:
        times[line] = time.time()
    assert job.wait(300) == 0, ''.join(times)[-3000:]
    return times


def logged_accuracies(work_dir: Path) -> list[float]:
    """Return the accuracies that the runs of a folder have logged."""
    accuracies = []
    for path in work_dir.glob('*/vis_data/scalars.json'):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if 'accuracy/top1' in row:
                accuracies.append(row['accuracy/top1'])
    return accuracies


@pytest.mark.slow
def test_two_processes_equal_one_after_a_kill(tmp_path):
    run_tool_here('train.py', config(tmp_path / 'one', batch=32))
    single = recorded(tmp_path / 'one')

    two = tmp_path / 'two'
    script('dist_train.sh', config(two, batch=16), 2, real=True)
    first, second = recorded(two, 0), recorded(two, 1)
    assert first['trained'] == second['trained']
    assert first['frozen'] == second['frozen'] == single['frozen']
    assert len(single['losses']) == len(first['losses']) == 8
    assert first['losses'] == pytest.approx(single['losses'], abs=1e-4)
    assert len(set(single['losses'])) == 8  # it did train

    # A killed process costs a restart and changes no weight.
    mark = tmp_path / 'killed'
    killed = config(tmp_path / 'killed-run', batch=16, mark=str(mark))
    times = script('dist_train.sh', killed, 2, MAX_RESTARTS='1')
    (named,) = [times[line] for line in times if 'was killed by SIGKILL' in line]
    # The other process did not wait for the dead one, nor for gloo's half hour.
    assert named - float(mark.read_text()) < 120
    resumed = recorded(killed.parent)
    assert len(resumed['losses']) == 5  # from the checkpoint of the third step
    assert resumed['trained'] == first['trained']
    assert resumed['frozen'] == first['frozen']

    # One process goes on, to the same losses, where two had begun.
    fewer = config(tmp_path / 'fewer', batch=32)
    shutil.copytree(two / 'work', tmp_path / 'fewer/work')
    (tmp_path / 'fewer/work/last_checkpoint').write_text(
        str(tmp_path / 'fewer/work/iter_3.pth')
    )
    run_tool_here('train.py', fewer, '--resume')
    after = recorded(tmp_path / 'fewer')['losses']
    assert after == pytest.approx(single['losses'][3:], abs=1e-4)

    metrics = two / 'metrics.json'
    flags = '--out', metrics, '--out-item', 'metrics'
    script('dist_test.sh', two / 'config.py', two / 'work/iter_8.pth', 2, *flags)
    (logged,) = logged_accuracies(two / 'work')
    assert json.loads(metrics.read_text())['accuracy/top1'] == pytest.approx(logged)


@pytest.mark.slow
def test_small_batches_of_two_processes_equal_a_large_one(tmp_path):
    run_tool_here('train.py', config(tmp_path / 'one', batch=32))
    single = recorded(tmp_path / 'one')['losses']
    small = config(tmp_path / 'two', batch=8, accumulate='auto')
    script('dist_train.sh', small, 2)
    losses = recorded(tmp_path / 'two')['losses']
    # A step of the optimizer is two batches on each process.
    steps = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert steps == pytest.approx(single, abs=1e-4)
    assert len(set(single)) == 8  # it did train


@pytest.mark.slow
def test_signal_to_one_process_stops_both_after_one_iteration(tmp_path):
    whole = config(tmp_path / 'whole', batch=16, epochs=8)
    script('dist_train.sh', whole, 2)

    mark = str(tmp_path / 'stopped-mark')
    path = config(
        tmp_path / 'stopped', batch=16, mark=mark, number=signal.SIGUSR1, epochs=8
    )
    command = ['bash', ROOT / 'tools/dist_train.sh', path, '2']
    done = run_command(*command, env=environment(), timeout=300)
    assert done.returncode == 143, done.stderr
    saved = Path((path.parent / 'work/last_checkpoint').read_text())
    line = done.stderr.strip().splitlines()[-1]
    assert line == f'Stopped by SIGUSR1. Saved: {saved} (--resume).'
    # Iterations after the fifth, when the signal came, were done by both, ten at most.
    number = int(saved.stem.removeprefix('iter_'))
    assert 5 <= number <= 15

    script('dist_train.sh', path, 2, '--resume', 'auto')
    resumed = recorded(path.parent)
    assert len(resumed['losses']) == 32 - number
    assert resumed['trained'] == recorded(whole.parent)['trained']
    assert resumed['trained'] == recorded(path.parent, 1)['trained']


def test_model_is_freed_before_process_group(monkeypatch):
    """Else threads of gloo run on while the interpreter ends, which may abort it."""
    models = []
    alive = []

    def destroy() -> None:
        alive.append(models[0]())

    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'destroy_process_group', destroy)

    def main() -> None:
        model = torch.nn.Linear(1, 1)
        model.itself = [model]  # a cycle, as runners and hooks are
        models.append(weakref.ref(model))

    run_tool(main)
    assert alive == [None]


ENDS = [
    ('error', 1, 'MemoryError: CUDA out of memory (traceback: '),
    ('user', 2, 'error: The disk is full.'),
    ('signal', 143, 'Stopped by SIGTERM. Saved: nothing (--resume).'),
    ('exit', 141, ''),
]


@pytest.mark.parametrize('how, code, words', ENDS)
def test_failed_process_ends_without_waiting_for_its_group(tmp_path, how, code, words):
    # Its worker has its outputs too: they are read until both have ended.
    done = run_command(
        'python',
        ROOT / 'tests/helpers/runner/failing_in_group.py',
        tmp_path,
        how,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stdout == '1048576\n'
