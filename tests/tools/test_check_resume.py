"""The tool that kills and resumes the demos, for one kill of the quickest."""

import json
import subprocess

import pytest

from tests.helpers import quick_python
from tests.helpers.tasks import ROOT


@pytest.mark.slow
def test_a_killed_demo_ends_as_the_undisturbed_one(tmp_path):
    pytest.importorskip('mmpretrain')
    out = tmp_path / 'out.json'
    python = quick_python.folder() / 'python'
    tool = ROOT / 'tools/dev/check_resume.py'
    words = ['--tasks', 'image', '--kills', '1', '--out', str(out)]
    subprocess.run([python, tool, *words], check=True, timeout=300)
    result = json.loads(out.read_text())['image']
    assert result['kills'] == 1
    assert result['equal'] == 1
    assert 0 < result['resumed_at'][0] < 21
