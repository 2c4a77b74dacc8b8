"""Imports go one way: a folder of the package uses those below it, never those above."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
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
    *('runner', 'tasks/base', 'tasks', *(f'tasks/{name}' for name in TASKS)),
    *('analysis', 'release', 'ablation', 'probing', 'cost', 'apis', 'commands', '__init__'),
)
#: Units that name modules above them in strings, to be imported when they are needed: the
#: subpackages and what an import of another library brings in; what MMEngine registers at the
#: first look-up, and the check of a checkpoint; the tasks.
TABLES = {'__init__', 'compat', 'tasks'}
#: Module -> its file.
FILES = {
    '.'.join(p.relative_to(PACKAGE.parent).with_suffix('').parts).removesuffix('.__init__'): p
    for p in sorted(PACKAGE.rglob('*.py'))
}
TREES = {module: ast.parse(path.read_text(encoding='utf-8')) for module, path in FILES.items()}


def unit_of(module: str) -> str:
    """Return the unit of a module."""
    _, *parts = module.split('.')
    if parts[:1] == ['tasks'] and parts[1:2] and parts[1] in (*TASKS, 'base'):
        return '/'.join(parts[:2])
    return parts[0] if parts else '__init__'


def imports(module: str) -> Iterator[str]:
    """Yield the modules of this package that a module imports anywhere in it."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{module}: imports are absolute'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            found = name if name in FILES else name.rpartition('.')[0]
            if found in FILES and found != 'lm4ve':
                yield found


def strings(module: str) -> Iterator[str]:
    """Yield the modules of this package that a module names in strings."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r'lm4ve(\.[a-z_0-9]+)+', node.value):
                yield node.value


def is_upward(unit: str, other: str) -> bool:
    return ORDER.index(other) > ORDER.index(unit)


def test_every_unit_has_its_place():
    assert {unit_of(module) for module in FILES} == set(ORDER)


def test_no_import_goes_upward_or_to_another_task():
    tasks = {f'tasks/{name}' for name in TASKS}
    wrong = [
        f'{module} imports {other}'
        for module in FILES
        for other in imports(module)
        for unit, theirs in [(unit_of(module), unit_of(other))]
        if is_upward(unit, theirs) or ({unit, theirs} <= tasks and unit != theirs)
    ]
    assert not wrong


def test_no_files_import_each_other_in_a_circle():
    """Raises graphlib.CycleError, which names the files of a circle."""
    TopologicalSorter({module: {*imports(module)} - {module} for module in FILES}).prepare()


def test_only_tables_name_modules_above_them():
    upward = {
        unit_of(module)
        for module in FILES
        for other in strings(module)
        if is_upward(unit_of(module), unit_of(other))
    }
    assert upward <= TABLES


def test_no_room_holds_over_a_fifth_of_the_package():
    lines = Counter()
    for module, path in FILES.items():
        lines[unit_of(module)] += len(path.read_text(encoding='utf-8').splitlines())
    assert max(lines.values()) <= sum(lines.values()) / 5, lines.most_common(1)


def test_the_table_of_tasks_imports_nothing_of_a_task():
    for name in TASKS:
        assert [*imports(f'lm4ve.tasks.{name}')] == ['lm4ve.tasks.base.task']


@pytest.mark.parametrize('folder', ['projects', 'configs', 'tools', 'tests', 'docs'])
def test_a_file_has_at_most_400_lines(folder):
    files = [p for end in ('py', 'sh') for p in (ROOT / folder).rglob(f'*.{end}')]
    assert not [p for p in files if len(p.read_text(encoding='utf-8').splitlines()) > 400]
