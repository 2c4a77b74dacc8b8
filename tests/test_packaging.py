"""What users install: a wheel that carries the configs, a set-up that explains."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_a_wheel_carries_the_configs_and_others_inherit_them(tmp_path):
    pytest.importorskip('mmpretrain')
    source = tmp_path / 'source'
    ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for name in ('projects', 'configs'):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'wheel',
            '--no-deps',
            '--quiet',
            '--no-build-isolation',
            '-w',
            tmp_path,
            source,
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob('lm4ve-*.whl')
    site = tmp_path / 'site'
    zipfile.ZipFile(wheel).extractall(site)
    packed = site / 'lm4ve/zoo/.mim/configs'
    for path in (ROOT / 'configs').rglob('*.py'):
        assert (packed / path.relative_to(ROOT / 'configs')).is_file(), path

    theirs = tmp_path / 'theirs.py'
    theirs.write_text("_base_ = 'lm4ve::lm4ve/vit-s_llama_in1k.py'\n")
    script = (
        'import lm4ve; print(lm4ve.__file__)\n'
        'from mmengine.config import Config\n'
        f'print(Config.fromfile({str(theirs)!r}).model.neck.type)\n'
        'from mmpretrain import list_models\n'
        'print("vit-s_llama_in1k" in list_models())\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        text=True,
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(site)},
    )
    where, neck, known = done.stdout.strip().splitlines()[-3:]
    assert where.startswith(str(site))
    assert (neck, known) == ('LLMBlockNeck', 'True')


def set_up(tmp_path: Path, **python: str):
    """Run the set-up script with stand-ins for Pythons; nothing else is found."""
    for name, body in python.items():
        path = tmp_path / name.replace('_', '.')
        path.write_text(f'#!/bin/sh\n{body}\n')
        path.chmod(0o755)
    for name in ('bash', 'dirname', 'tail', 'sh'):
        (tmp_path / name).symlink_to(shutil.which(name))
    return subprocess.run(
        ['bash', ROOT / 'tools/setup_venv.sh', tmp_path / 'venv'],
        text=True,
        capture_output=True,
        check=False,
        env={'PATH': str(tmp_path)},
    )


def test_an_unsupported_python_gives_one_line(tmp_path):
    done = set_up(tmp_path, python3='[ "$1" = -c ] && exit 1; echo Python 3.13.5')
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert 'needs Python 3.10, 3.11 or 3.12' in line and '3.13.5' in line


def test_no_python_at_all_gives_one_line(tmp_path):
    done = set_up(tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert 'needs Python' in line


def test_a_python_without_venv_names_the_apt_package(tmp_path):
    body = 'case "$2" in *ensurepip*) exit 1;; *version_info\\[:2\\]*) echo 3.11;; esac'
    done = set_up(tmp_path, python3_11=body)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert 'apt-get install python3.11-venv' in line


@pytest.mark.parametrize(
    'module, code, line',
    [
        ('open3d', 0, 'note: open3d .* apt-get install libusb-1.0-0'),
        ('cv2', 1, 'error: OpenCV .* apt-get install libusb-1.0-0'),
    ],
)
def test_a_missing_system_library_names_the_apt_package(tmp_path, module, code, line):
    for name in ('cv2', 'open3d'):
        broken = name == module
        (tmp_path / f'{name}.py').write_text(
            "raise OSError('libusb-1.0.so.0: cannot open shared object file: "
            "No such file or directory')"
            if broken
            else ''
        )
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/check_system.py'],
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    )
    assert done.returncode == code
    (text,) = (done.stdout + done.stderr).strip().splitlines()
    import re

    assert re.match(line, text)
