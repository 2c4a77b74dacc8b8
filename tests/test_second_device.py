"""Every demo trains, validates, resumes and tests on a second device as on the CPU.

The device is one of Python (:mod:`tests.helpers.second_device`): it refuses to mix with
the CPU, and counts what a GPU would be waited for. What only a GPU shows is in
``test_cuda.py``.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from packaging.version import Version

from tests.helpers.tasks import FOLDERS, ROOT, configs_of

#: A device can be written in Python since this version of torch.
NEEDED = Version('2.12')
#: The demo that runs in `make test`.
QUICK = 'vit-demo_minilm_digits.py'
#: Files of ours in which a training step waits for the device, or may: one that is not
#: here is new. Copies to the device that block count only where memory is pinned.
WAITING = {
    'lm4ve/geometry/point_ops.py',
    'lm4ve/tasks/rooms/models/heads.py',
    'lm4ve/tasks/rooms/models/language.py',
    'lm4ve/tasks/rooms/models/objects.py',
    'lm4ve/tasks/rooms/models/preprocessor.py',
}


def every_demo() -> list[Any]:
    """Return (task, config) of each demo; all but that of the digits walk."""
    rows = []
    for task in FOLDERS:
        for name in configs_of(task):
            if '-demo_' not in name or 'smollm2' in name:
                continue
            marks = () if name == QUICK else (pytest.mark.walk,)
            rows.append(pytest.param(task, name, id=name, marks=marks))
    return rows


@pytest.mark.skipif(
    Version(torch.__version__.partition('+')[0]) < NEEDED,
    reason=f'torch below {NEEDED} knows no device of Python',
)
@pytest.mark.parametrize(('task', 'name'), every_demo())
def test_demo_on_the_second_device_equals_the_cpu(task, name):
    result = compare_devices(task, name)
    assert result['losses'] < 1e-4
    assert result['weights'] < 1e-4
    here, there = result['metrics']
    assert there == pytest.approx(here, rel=1e-3, abs=1e-3)
    files = {line.partition(':')[0] for _, line, _ in result['waits']}
    ours = {file for file in files if file.startswith('lm4ve/')}
    assert ours <= WAITING


def compare_devices(task: str, name: str) -> dict[str, Any]:
    """Train a config on both devices in a process of its own."""
    command = [sys.executable, '-m', 'tests.helpers.device_runs', task, name]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
