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
    assert 'There is no GPU' in message and not (tmp_path / 'out.json').exists()


def test_every_command_ends_in_a_row(tmp_path):
    codes = [
        'print("well")',
        'raise SystemExit(3)',
        'import time; time.sleep(60)',
        'never',
    ]
    named = {code: [sys.executable, '-S', '-c', code] for code in codes}
    (tmp_path / f'{codes[0]}.json').write_text('{"rows": [1]}')
    rows = TOOL['run_all'](named, 2.0, tmp_path)
    assert [r['state'] for r in rows] == ['passed', 'failed', 'stopped', 'not begun']
    assert rows[0]['said'] == 'well\n' and rows[0]['result'] == {'rows': [1]}


def test_benchmarks_that_it_names_are_there(tmp_path):
    found = TOOL['commands'](tmp_path)
    scripts = [
        part for command in found.values() for part in command if part.endswith('.py')
    ]
    assert len(scripts) == len(found) - 1 and all((ROOT / s).is_file() for s in scripts)
