"""What of the check on a GPU can be checked without one."""

import runpy
import sys

import pytest
import torch

from tests.helpers.tasks import ROOT

TOOL = runpy.run_path(str(ROOT / 'tools/dev/gpu_check.py'))


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_one_message_says_so(fails, tmp_path):
    message = fails('dev/gpu_check.py', '--out', tmp_path / 'out.json')
    assert 'There is no GPU that torch' in message and 'make test' in message
    assert not (tmp_path / 'out.json').exists()


def test_every_command_ends_in_a_row(tmp_path):
    def python(code):
        return [sys.executable, '-S', '-c', code]

    (tmp_path / 'good.json').write_text('{"rows": [1]}')
    named = dict(
        good=python('print("well")'),
        bad=python('raise SystemExit(3)'),
        slow=python('import time; time.sleep(60)'),
        late=python('print("never")'),
    )
    good, bad, slow, late = TOOL['run_all'](named, 2.0, tmp_path)
    assert (good['state'], good['said'], good['result']) == ('passed', 'well\n', {'rows': [1]})
    assert (bad['state'], 'result' in bad) == ('failed', False)
    assert (slow['state'], late['state'], late['seconds']) == ('stopped', 'not begun', 0.0)


def test_benchmarks_that_it_names_are_there(tmp_path):
    found = TOOL['commands'](tmp_path)
    scripts = [part for command in found.values() for part in command if part.endswith('.py')]
    assert len(scripts) == len(found) - 1 and all((ROOT / s).is_file() for s in scripts)
