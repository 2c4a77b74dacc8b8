"""An evaluated batch is moved from a device in one copy, and stays what it was."""

import json
import subprocess
import sys

import pytest
import torch
from packaging.version import Version

from tests.helpers.tasks import ROOT


@pytest.mark.skipif(
    Version(torch.__version__.partition('+')[0]) < Version('2.12'),
    reason='an older torch knows no device of Python',
)
def test_a_batch_is_moved_in_one_copy():
    command = [sys.executable, '-m', 'tests.helpers.runner.moved_samples']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {'copy from the device': 1}
