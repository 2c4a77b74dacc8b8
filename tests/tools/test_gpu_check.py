"""What of the check on a GPU can be checked without one."""

import sys

import pytest
import torch

from tests.helpers.tasks import ROOT
from tests.helpers.tools import load_tool

TOOL = load_tool('dev/gpu_check.py')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_one_message_says_so(fails, tmp_path):
    message = fails('dev/gpu_check.py', '--out', tmp_path / 'out.json')
    assert 'There is no GPU' in message
    assert not (tmp_path / 'out.json').exists()


def test_every_command_ends_in_a_row(tmp_path):
    codes = {
        'good': 'print("well")',
        'bad': 'raise SystemExit(3)',
        'slow': 'import time; time.sleep(60)',
        'late': 'never',
    }
    commands = {name: [sys.executable, '-S', '-c', c] for name, c in codes.items()}
    (tmp_path / 'good.json').write_text('{"rows": [1]}')
    rows = TOOL['run_all'](commands, 2.0, tmp_path)
    states = [row['state'] for row in rows]
    assert states == ['passed', 'failed', 'stopped', 'not begun']
    assert rows[0]['said'] == 'well\n'
    assert rows[0]['result'] == {'rows': [1]}


def test_benchmarks_that_it_names_are_there(tmp_path):
    commands = TOOL['commands'](tmp_path)
    scripts = []
    for command in commands.values():
        scripts += [word for word in command if word.endswith('.py')]
    assert len(scripts) == len(commands) - 1  # one runs pytest
    for script in scripts:
        assert (ROOT / script).is_file()
