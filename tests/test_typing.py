"""Editors and type checkers see the public names of packages that import lazily."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lm4ve
from lm4ve.tasks import all_tasks

#: A line of a user's script -> what it is, or how it is wrong.
SCRIPT = {
    'reveal_type(lm4ve.wrap)': 'def (model',
    'reveal_type(lm4ve.tasks.vqa.VQAInferencer)': 'def (',
    "reveal_type(lm4ve.apis.list_models('*digits'))": 'list[str]',
    'lm4ve.warp_model': 'Module has no attribute "warp_model"',
    'from lm4ve.tasks.image import Digits': 'has no attribute "Digits"',
    'lm4ve.wrap()': 'Missing positional',
}
#: Without the inside of other libraries, which takes minutes the first time.
CONFIG = '[mypy]\nignore_missing_imports = True\n[mypy-{}.*]\nfollow_imports = skip\n'.format(
    '.*,'.join(('torch', 'transformers', 'numpy', 'mmengine', 'wrapt', 'matplotlib'))
)


@pytest.mark.slow
def test_mypy_checks_a_script_of_a_user(tmp_path):
    pytest.importorskip('mypy')
    lines = ['import lm4ve', 'import lm4ve.tasks.vqa', *SCRIPT]
    (tmp_path / 'script.py').write_text('\n'.join(lines))
    (tmp_path / 'mypy.ini').write_text(CONFIG)
    words = '-m mypy --no-error-summary --follow-imports silent script.py'.split()
    env = dict(MYPYPATH=str(Path(lm4ve.__file__).parents[1]))
    run = dict(text=True, capture_output=True, cwd=tmp_path, env=env)
    found = subprocess.run([sys.executable, *words], **run).stdout.splitlines()
    for line, (code, words) in zip(found, SCRIPT.items(), strict=True):
        assert words in line and 'is "Any"' not in line, f'{code}: {line}'


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
