"""What users install: a wheel that carries the configs, a set-up that explains."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from lm4ve.tasks import TASKS
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_command

#: What runs with the wheel: the first config with a block of each task trains an epoch.
SCRIPT = """
import sys
from pathlib import Path
import lm4ve.openmmlab
import pytest
from lm4ve.runner.command_line import build_runner
from mmpretrain import list_models
from tests.helpers.shrink import shrinker_of
from tests.helpers.tasks import FOLDERS, configs_of

folder = Path(sys.argv[1])
assert Path(lm4ve.__file__).is_relative_to(folder)
assert 'vit-s_llama_in1k' in list_models()
for task in FOLDERS:
    name = next(c for c in configs_of(task) if '_llama' in c)
    shrinker = shrinker_of(task, folder)
    shrinker.enter(pytest.MonkeyPatch())
    build_runner(shrinker.load(name, folder / task)).train()
"""


#: Files of the package that are no code.
PACKAGE_DATA = (
    'analysis/page.html',
    'analysis/activations.html',
    'study/report.html',
    'demo_data/digits.npz',
    'zoo/weights/scores.json',
)


@pytest.mark.walk
@pytest.mark.slow
def test_a_wheel_trains_configs_that_others_inherit(tmp_path):
    for host in ('mmpretrain', 'mmaction'):
        pytest.importorskip(host)
    source = tmp_path / 'source'
    ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for name in ('projects', 'configs', 'requirements'):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    build = '-m pip wheel --no-deps --quiet --no-build-isolation -w'.split()
    subprocess.run([sys.executable, *build, tmp_path, source], check=True)
    (wheel,) = tmp_path.glob('lm4ve-*.whl')
    site = tmp_path / 'site'
    zipfile.ZipFile(wheel).extractall(site)
    for name in PACKAGE_DATA:
        assert (site / 'lm4ve' / name).is_file()
    packed = site / 'lm4ve/zoo/.mim/configs'
    for path in (ROOT / 'configs').rglob('*.py'):
        assert (packed / path.relative_to(ROOT / 'configs')).is_file(), path

    # Projects are no part of it: they are used from a clone.
    tops = {path.name for path in site.iterdir() if path.suffix != '.dist-info'}
    assert tops == {'lm4ve'}

    path = f'{site}:{ROOT}:{ROOT / "projects"}'
    env = {**os.environ, 'PYTHONPATH': path}
    subprocess.run(
        [sys.executable, '-c', SCRIPT, tmp_path], check=True, cwd=tmp_path, env=env
    )
    assert {p.parent.name for p in tmp_path.glob('*/epoch_1.pth')} == {*TASKS}


#: A Python that cannot make virtual environments, as Debian's without its -venv.
BARE = 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.13;; esac'
#: One that can, and prints what it is asked to make.
WHOLE = 'case "$1" in -m) echo "$0 $*" >&2; exit 1;; esac; echo 3.11'
#: One that is too old for the set-up.
OLD = '[ "$1" = -c ] && exit 1; echo Python 3.10.12'

#: The Pythons on the path, and what the answer contains.
PYTHONS = {
    'none': ({}, ['needs Python']),
    'unsupported': (
        dict(python3=OLD),
        ['needs Python 3.11, 3.12, 3.13 or 3.14', '3.10.12'],
    ),
    'without venv': (dict(python3=BARE), ['apt-get install python3.13-venv']),
    'another one': (
        {'python3': BARE, 'python3.11': WHOLE},
        ['python3.11 -m venv --clear'],
    ),
}


@pytest.mark.parametrize('pythons, expected', PYTHONS.values(), ids=PYTHONS)
def test_the_set_up_answers_in_one_line(pythons, expected, tmp_path):
    """The path holds stand-ins for Pythons, and the few commands of the script."""
    for name, body in pythons.items():
        python = tmp_path / name
        python.write_text(f'#!/bin/sh\n{body}\n')
        python.chmod(0o755)
    for name in ('bash', 'dirname', 'tail', 'sh'):
        (tmp_path / name).symlink_to(shutil.which(name))
    script = ROOT / 'tools/setup_venv.sh'
    done = run_command('bash', script, tmp_path / 'venv', env={'PATH': str(tmp_path)})
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1
    for text in expected:
        assert text in line
