"""Two CPU processes train as one does, and again after one is killed: gloo, DDP, the scripts."""

import json
import subprocess
import time
import weakref

import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.runner.command_line import run_tool
from tests.helpers.processes import environment
from tests.helpers.runner.recording import config, recorded
from tests.helpers.tasks import ROOT
from tests.helpers.tools import ERRORS_ONLY, run_tool_here

pytest.importorskip('mmpretrain')


def script(name: str, *args, real: bool = False) -> dict[str, float]:
    """Run one of our shell scripts; return its lines of errors, and when each came."""
    env = environment(real) | dict(PAUSE='0', RESTARTS='1')
    words = ['bash', ROOT / 'tools' / name, *map(str, args)]
    job = subprocess.Popen(words, env=env, **ERRORS_ONLY)
    lines = {line: time.time() for line in job.stderr}
    assert job.wait(300) == 0, ''.join(lines)[-3000:]
    return lines


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
    lines = script('dist_train_restarting.sh', killed, 2)
    (again,) = (t for line, t in lines.items() if '0 more restart(s) left' in line)
    # The other process did not wait for the dead one, nor for gloo's half hour.
    assert again - float(mark.read_text()) < 120
    resumed = recorded(killed.parent)
    assert len(resumed['losses']) == 5  # from the checkpoint of the third step
    assert (
        resumed['trained'] == first['trained'] and resumed['frozen'] == first['frozen']
    )

    metrics = two / 'metrics.json'
    flags = '--out', metrics, '--out-item', 'metrics'
    script('dist_test.sh', two / 'config.py', two / 'work/iter_8.pth', 2, *flags)
    files = (two / 'work').glob('*/vis_data/scalars.json')
    rows = [
        json.loads(line) for path in files for line in path.read_text().splitlines()
    ]
    (logged,) = [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row]
    assert json.loads(metrics.read_text())['accuracy/top1'] == pytest.approx(logged)


@pytest.mark.parametrize('error', [UserError, RuntimeError, KeyboardInterrupt])
def test_model_is_freed_before_process_group(monkeypatch, error):
    """Else threads of gloo run on while the interpreter ends, which may abort it."""
    built, alive = [], []
    group = torch.distributed
    monkeypatch.setattr(group, 'is_initialized', lambda: True)
    monkeypatch.setattr(
        group, 'destroy_process_group', lambda: alive.append(built[0]())
    )

    def main() -> None:
        model = torch.nn.Linear(1, 1)
        model.itself = [model]  # a cycle, as runners and hooks are
        built.append(weakref.ref(model))
        raise error('x')

    with pytest.raises(SystemExit):
        run_tool(main)
    assert alive == [None]
