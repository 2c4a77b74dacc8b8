"""Editors and type checkers see the public names of packages that import lazily."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lm4ve
from lm4ve.tasks import all_tasks

SCRIPT = """
import lm4ve
from lm4ve import wrap
from lm4ve.tasks.vqa import VQAInferencer
from lm4ve.tasks import motion

reveal_type(wrap)
reveal_type(lm4ve.from_pretrained)
reveal_type(VQAInferencer)
reveal_type(motion.Scene)
reveal_type(lm4ve.apis.list_models('*digits'))
reveal_type(lm4ve.errors.UserError())
lm4ve.wrapp
from lm4ve.tasks.image import Digits
wrap(model=None)
"""
#: What each line above is, or how it is wrong.
FOUND = ['def (', 'def (', 'def (', 'def (', 'list[str]', 'UserError']
FOUND += ['Module has no attribute "wrapp"', 'has no attribute "Digits"', 'Missing positional']
#: Without the inside of other libraries, which takes minutes the first time.
CONFIG = '[mypy]\nignore_missing_imports = True\ncheck_untyped_defs = True\n' + ''.join(
    f'[mypy-{name}.*]\nfollow_imports = skip\n'
    for name in ('torch', 'transformers', 'numpy', 'mmengine', 'wrapt', 'matplotlib', 'pandas')
)


@pytest.mark.slow
def test_mypy_checks_a_script_of_a_user(tmp_path):
    pytest.importorskip('mypy')
    (tmp_path / 'script.py').write_text(SCRIPT)
    (tmp_path / 'mypy.ini').write_text(CONFIG)
    words = '-m mypy --no-error-summary --follow-imports silent script.py'.split()
    path = str(Path(lm4ve.__file__).parents[1])
    run = dict(text=True, capture_output=True, cwd=tmp_path, env=dict(MYPYPATH=path))
    found = subprocess.run([sys.executable, *words], **run).stdout.splitlines()
    assert len(found) == len(FOUND), found
    for line, words in zip(found, FOUND, strict=True):
        assert words in line and 'is "Any"' not in line, line


def test_dir_star_and_stubs_give_what_is_public():
    names: dict = {}
    exec('from lm4ve import *', names)
    assert names.keys() - {'__builtins__'} == {*lm4ve.__all__} < {*dir(lm4ve)}
    assert all(getattr(lm4ve, name) is not None for name in dir(lm4ve))
    for task in all_tasks():
        package = sys.modules[task.package]
        stub = ast.parse(Path(package.__file__).with_suffix('.pyi').read_text())
        imports = [n for n in stub.body if isinstance(n, ast.ImportFrom)]
        found = {(n.module, alias.asname) for n in imports for alias in n.names}
        tables = [*task.registers.items(), *task.exports.items()]
        wanted = {(f'{task.package}.{module}', name) for module, names in tables for name in names}
        assert found == wanted | {('lm4ve.tasks.base.task', 'Task')}
        assert dir(package) == package.__all__ == sorted(name for _, name in wanted)
