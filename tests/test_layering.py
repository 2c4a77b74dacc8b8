"""Imports go one way: a folder of the package uses those below it, never those above."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lm4ve
from lm4ve.tasks import TASKS
from tests.helpers.tasks import ROOT

PACKAGE = Path(lm4ve.__file__).parent
#: From the bottom to the top. A unit is a folder or a file of the package; `tasks` is
#: what lies directly in that folder: the table of tasks and the protocol.
ORDER = (
    *('version', 'errors', 'files', 'registry', 'zoo', 'llm', 'compat', 'blocks', 'necks'),
    *('runner', 'tasks/base', 'tasks'),
    *(f'tasks/{name}' for name in TASKS),
    *('analysis', 'release', 'ablation', 'cost', 'apis', 'commands'),
    '__init__',
)
#: Neighbors that must not import each other, although the order would allow it.
STRANGERS = {f'tasks/{a}': [f'tasks/{b}' for b in TASKS if b != a] for a in TASKS}
#: Units that name modules above them in strings, to be imported when they are needed.
TABLES = {
    '__init__': 'the subpackages, and what an import of another library brings in',
    'compat': 'what MMEngine registers at the first look-up, and the check of a checkpoint',
    'tasks': 'the tasks',
}


def unit_of(module: list[str]) -> str:
    """Return the unit of a module's path below the package."""
    if module[:1] == ['tasks'] and module[1:2] and module[1] in (*TASKS, 'base'):
        return '/'.join(module[:2])
    return module[0]


def imports(path: Path) -> Iterator[list[str]]:
    """Yield the modules of this package that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}: imports are absolute'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from (n.split('.')[1:] for n in names if n.startswith('lm4ve.'))


def strings(path: Path) -> Iterator[list[str]]:
    """Yield the modules of this package that a file names in strings."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r'lm4ve(\.[a-z_0-9]+)+', node.value):
                yield node.value.split('.')[1:]


FILES = {p: p.relative_to(PACKAGE).with_suffix('') for p in sorted(PACKAGE.rglob('*.py'))}
UNITS = {path: unit_of(list(below.parts)) for path, below in FILES.items()}


def is_upward(unit: str, other: str) -> bool:
    return ORDER.index(other) > ORDER.index(unit)


def test_every_unit_has_its_place():
    assert set(UNITS.values()) == set(ORDER)


def test_no_arrow_goes_upward_and_so_no_circle_is_there():
    wrong = [
        f'{FILES[path]} imports {".".join(module)}'
        for path, unit in UNITS.items()
        for module in imports(path)
        if is_upward(unit, other := unit_of(module)) or other in STRANGERS.get(unit, ())
    ]
    assert not wrong


def test_only_tables_name_modules_above_them():
    upward = {
        unit
        for path, unit in UNITS.items()
        for module in strings(path)
        if is_upward(unit, unit_of(module))
    }
    assert upward <= set(TABLES)


def test_the_table_of_tasks_imports_nothing_of_a_task():
    for name in TASKS:
        declaration = PACKAGE / 'tasks' / name / '__init__.py'
        assert list(imports(declaration)) == [['tasks', 'base', 'task', 'Task']]


@pytest.mark.parametrize(
    'call, home', [('Config.fromfile(', ['config.py']), ('matplotlib.use(', [])]
)
def test_some_calls_have_one_home_or_none(call, home):
    """A moved config is answered in one place; no module sets matplotlib's back-end."""
    sources = [*FILES, *(ROOT / 'tools').rglob('*.py')]
    assert [p.name for p in sources if call in p.read_text(encoding='utf-8')] == home


@pytest.mark.parametrize('folder', ['projects', 'configs', 'tools', 'tests', 'docs'])
def test_a_file_has_at_most_400_lines(folder):
    files = [p for end in ('py', 'sh') for p in (ROOT / folder).rglob(f'*.{end}')]
    assert not [p for p in files if len(p.read_text(encoding='utf-8').splitlines()) > 400]
