"""Metrics of several processes are those of one, also on data that they share unevenly."""

import json
import subprocess

import pytest

from tests.helpers.processes import environment
from tests.helpers.runner.recording import config
from tests.helpers.tasks import ROOT
from tests.helpers.tools import ERRORS_ONLY, run_tool_here

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
