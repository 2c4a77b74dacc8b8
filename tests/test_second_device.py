"""lm4ve computes on a second device what it does on the CPU, and never waits for it.

Every demo trains, validates, resumes, tests, is drawn and exported; and so do the
block's paths, its variants, and models of other libraries with a block.

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

from lm4ve.zoo import PACKAGES
from tests.helpers.second_device import asking_line
from tests.helpers.tasks import FOLDERS, ROOT, configs_of

#: A device can be written in Python since this version of torch.
NEEDED = Version('2.12')
pytestmark = pytest.mark.skipif(
    Version(torch.__version__.partition('+')[0]) < NEEDED,
    reason=f'torch below {NEEDED} knows no device of Python',
)
#: The demo that runs in `make test`.
QUICK = 'vit-demo_minilm_digits.py'
#: Files of ours in which a training step waits for the device, or may: one that is not
#: here is new. Copies to the device that block count only where memory is pinned.
WAITING: set[str] = set()


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


@pytest.mark.parametrize(('task', 'name'), every_demo())
def test_demo_on_the_second_device_equals_the_cpu(task, name):
    (result,) = run_in_process('device_runs', task, name)
    assert result['losses'] < 1e-4
    assert result['weights'] < 1e-4
    here, there = result['metrics']
    assert there == pytest.approx(here, rel=1e-3, abs=1e-3)
    assert result['drawn'] < 0.5  # of 255, on average
    assert result['exported'] < 1e-4
    assert our_files(result) <= WAITING


#: Groups of parts that walk.
PARTS = 'blocks variants sixteen_bits hosts adapters tools encoders mixed_precision'
GROUPS = [
    'paths',
    pytest.param(PARTS, marks=pytest.mark.walk),
]


@pytest.mark.parametrize('groups', GROUPS)
def test_part_on_the_second_device_equals_the_cpu(groups):
    results = run_in_process('device_checks', *groups.split())
    assert {result['group'] for result in results} == set(groups.split())
    wrong = [result for result in results if not result['difference'] < bound(result)]
    assert not wrong
    assert set().union(*map(our_files, results)) <= WAITING


@pytest.mark.parametrize(
    ('package', 'line'),
    [('tests.helpers', '?'), ('lm4ve.necks', 'lm4ve/necks/any.py:1')],
)
def test_line_is_of_the_package_of_its_module_whatever_the_clone_is_called(
    package, line
):
    scope = {'__package__': package, 'asking_line': asking_line}
    path = '/clones/lm4ve/projects/mmengine/any.py'
    exec(compile('line = asking_line()', path, 'exec'), scope)
    assert scope['line'] == line


def bound(result: dict[str, Any]) -> float:
    """Return how far a part may be from the CPU's: rounding, of 16 bits where it has them."""
    if result['group'] in ('sixteen_bits', 'mixed_precision'):
        return 2e-2
    if result['group'] == 'encoders':
        return 1e-3  # features are stored in float16
    return 1e-5


def our_files(result: dict[str, Any]) -> set[str]:
    """Return the files of ours in which the device was waited for."""
    files = {line.partition(':')[0] for _, line, _ in result['waits']}
    return {file for file in files if file.partition('/')[0] in PACKAGES}


def run_in_process(module: str, *words: str) -> list[dict[str, Any]]:
    """Run a module of the helpers in a process of its own; return its lines of JSON."""
    command = [sys.executable, '-m', f'tests.helpers.{module}', *words]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Among them are lines of logs.
    lines = [line for line in done.stdout.splitlines() if line.startswith('{')]
    return [json.loads(line) for line in lines]
