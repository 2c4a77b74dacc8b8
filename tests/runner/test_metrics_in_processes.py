"""Metrics of several processes are those of one, also on data that they share unevenly."""

import json
import subprocess

import pytest

from tests.helpers import quick_python
from tests.helpers.metrics_in_processes import DEMOS
from tests.helpers.processes import environment
from tests.helpers.runner.recording import config
from tests.helpers.tasks import ROOT
from tests.helpers.tools import ERRORS_ONLY, run_command, run_tool_here

pytest.importorskip('mmpretrain')


@pytest.mark.slow
def test_machines_in_different_folders_evaluate_as_one(tmp_path):
    """Of 21 samples, the second machine repeats one, which counts once."""
    path = config(tmp_path / 'run', batch=16)
    with path.open('a') as file:
        file.write('test_dataloader = dict(batch_size=8, dataset=dict(indices=21))\n')
    run_tool_here('train.py', path)
    weights = tmp_path / 'run/work/iter_16.pth'
    only_metrics = '--out-item', 'metrics', '--out'
    run_tool_here('test.py', path, weights, *only_metrics, tmp_path / 'one.json')

    words = ['bash', ROOT / 'tools/dist_test.sh', path, weights, '1', *only_metrics]
    words.append(tmp_path / 'two.json')
    env = environment() | dict(NNODES='2', MASTER_ADDR='127.0.0.1')
    jobs = []
    for rank in range(2):
        folder = tmp_path / f'machine{rank}'
        folder.mkdir()
        options = dict(ERRORS_ONLY, cwd=folder, env=env | dict(NODE_RANK=str(rank)))
        jobs.append(subprocess.Popen([str(word) for word in words], **options))
    errors = [job.communicate(timeout=300)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], ''.join(errors)[-3000:]
    one = json.loads((tmp_path / 'one.json').read_text())
    two = json.loads((tmp_path / 'two.json').read_text())
    assert two['accuracy/top1'] == pytest.approx(one['accuracy/top1'])
    assert not list(tmp_path.glob('machine*/*'))


@pytest.mark.walk
@pytest.mark.parametrize('task', DEMOS)
def test_metrics_of_uneven_data_equal_one_process(task, tmp_path):
    python = [str(quick_python.folder() / 'python'), '-m']
    measure = ['tests.helpers.metrics_in_processes', task, str(tmp_path)]
    env = environment()
    launch = ['torch.distributed.run', '--nproc_per_node=2']
    launch += [f'--master_port={env["PORT"]}', '-m']
    for words in ([], launch):
        command = [*python, *words, *measure]
        done = run_command(*command, cwd=ROOT, env=env, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    alone = json.loads((tmp_path / 'none.json').read_text())
    together = json.loads((tmp_path / 'pytorch.json').read_text())
    assert alone['size'] == together['size']
    assert alone['size'] % 2 == 1
    assert together['metrics'] == pytest.approx(alone['metrics'], rel=1e-4, abs=1e-4)
