"""Imports go one way, and tables and stubs say what the modules of a task register.

A project beside the package counts as one more unit, above all others: it imports the
package, which never imports it.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import llm4seg
import lm4ve
from lm4ve import registry
from lm4ve.tasks import TASKS, all_tasks, get_task
from lm4ve.zoo import PROJECTS
from tests.helpers import import_order

PACKAGE = Path(lm4ve.__file__).parent
#: The units from the bottom to the top, with the projects.
ORDER = [*import_order.ORDER, *PROJECTS.values()]
#: Units that name modules above them in strings, to be imported when they are needed:
#: the subpackages and what an import of another library brings in; the tasks.
TABLES = {'__init__', 'tasks'}
#: The packages that are parsed here.
PACKAGES = [PACKAGE, Path(llm4seg.__file__).parent]


def source_files() -> Iterator[Path]:
    """Yield the files of all packages; a project's configs are no modules."""
    for package in PACKAGES:
        for file in sorted(package.rglob('*.py')):
            if 'configs' not in file.relative_to(package).parts:
                yield file


def module_of(file: Path) -> str:
    """Return the dotted name of a file of a package."""
    parts = file.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts).removesuffix('.__init__')


#: Module -> its file.
FILES = {module_of(file): file for file in source_files()}
#: Module -> its syntax tree.
TREES = {
    module: ast.parse(file.read_text(encoding='utf-8'))
    for module, file in FILES.items()
}


def unit_of(module: str) -> str:
    """Return the unit of a module."""
    package, *parts = module.split('.')
    if package != 'lm4ve':
        return package
    if not parts:
        return '__init__'
    unit = '/'.join(parts[:2])
    if unit in ORDER:
        return unit
    return parts[0]


def imports(module: str) -> Iterator[str]:
    """Yield the modules of these packages that a module imports anywhere in it."""
    for name in imported_names(module):
        if name not in FILES:
            name = name.rpartition('.')[0]  # of a function or class
        if name in FILES and name != 'lm4ve':
            yield name


def imported_names(module: str) -> Iterator[str]:
    """Yield the full names of what a module imports, of modules and of what is in them."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{module}: imports are absolute'
            for alias in node.names:
                yield f'{node.module}.{alias.name}'


def strings(module: str) -> Iterator[str]:
    """Yield the modules of these packages that a module names in strings."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            module, _, _ = node.value.partition(':')  # of a function module:name
            if re.fullmatch(r'(lm4ve|llm4seg)(\.[a-z_0-9]+)+', module):
                yield module


def is_upward(unit: str, other: str) -> bool:
    return ORDER.index(other) > ORDER.index(unit)


def test_every_unit_has_its_place():
    assert {unit_of(module) for module in FILES} == set(ORDER)


def test_no_import_goes_upward_or_to_another_task():
    tasks = {*import_order.OWN_TASKS, *PROJECTS.values()}
    wrong = []
    for module in FILES:
        unit = unit_of(module)
        for imported in imports(module):
            imported_unit = unit_of(imported)
            between_tasks = unit in tasks and imported_unit in tasks - {unit}
            if between_tasks or is_upward(unit, imported_unit):
                wrong.append(f'{module} imports {imported}')
    assert not wrong


def test_no_files_import_each_other_in_a_circle():
    """Raises graphlib.CycleError, which names the files of a circle."""
    graph = {module: {*imports(module)} - {module} for module in FILES}
    TopologicalSorter(graph).prepare()


def test_only_tables_name_modules_above_them():
    naming_upward = set()
    for module in FILES:
        for named in strings(module):
            if is_upward(unit_of(module), unit_of(named)):
                naming_upward.add(unit_of(module))
    assert naming_upward <= TABLES


def test_generators_of_demo_data_know_no_task_and_no_data_set():
    """They give arrays, scenes, questions and meshes; a task writes and registers them."""
    lm4ve_rooms = {'errors', 'files', 'geometry', 'demo_data'}
    modules = {'lm4ve.data.held_out'}
    libraries = {'cv2', 'numpy', 'scipy', 'skimage', 'sklearn', 'PIL', 'tqdm'}
    wrong = []
    for module in FILES:
        if unit_of(module) != 'demo_data':
            continue
        for imported in imports(module):
            if unit_of(imported) not in lm4ve_rooms and imported not in modules:
                wrong.append(f'{module} imports {imported}')
        for name in imported_names(module):
            library = name.partition('.')[0]
            known = sys.stdlib_module_names | libraries | {'lm4ve'}
            if library not in known:
                wrong.append(f'{module} imports {library}')
    assert not wrong


def test_the_table_of_tasks_imports_nothing_of_a_task():
    # Neither of these imports a task, OpenCV or torchvision.
    light = {'lm4ve.tasks', 'lm4ve.tasks.base.task', 'lm4ve.data.suffixes'}
    for task in all_tasks():
        assert {*imports(task.package)} <= light


#: Registering modules lie in these, for every task, each a module or a package.
PLACES = {
    'datasets',
    'loops',
    'metrics',
    'models',
    'optim',
    'transforms',
    'visualization',
}
#: Task -> a package without which its modules do not import.
NEEDS = {
    'image': 'mmpretrain',
    'video': 'mmaction',
    'vqa': 'mmpretrain',
    'rooms': 'mmcv',
}
#: Modules of the tests in statements that import them.
IMPORTED_TESTS = re.compile(r'(?:from|import) (tests(?:\.\w+)+)')
REGISTRIES = [
    r for r in vars(registry).values() if isinstance(r, registry.LazyRegistry)
]


@pytest.mark.parametrize('name', TASKS)
def test_the_table_is_what_importing_the_tasks_modules_registers(name):
    pytest.importorskip(NEEDS.get(name, 'torch'))
    task = get_task(name)
    for module in FILES:
        if module.startswith(f'{task.package}.'):
            importlib.import_module(module)
    registered = defaultdict(set)
    for r in REGISTRIES:
        for key, value in r.module_dict.items():
            if value.__module__.startswith(f'{task.package}.'):
                module = value.__module__.removeprefix(f'{task.package}.')
                registered[module].add(key)
    table = {module: set(names) for module, names in task.registers.items()}
    assert registered == table
    assert {module.partition('.')[0] for module in registered} <= PLACES
    package = importlib.import_module(task.package)
    for names in task.exports.values():
        for exported in names:
            assert getattr(package, exported) is not None


def test_tests_share_code_in_helpers_alone():
    """A test file imports no other one, nor does the text of a script in it."""
    tests = Path(__file__).parent
    wrong = []
    for file in sorted(tests.rglob('*.py')):
        for module in IMPORTED_TESTS.findall(file.read_text(encoding='utf-8')):
            if not module.startswith('tests.helpers'):
                wrong.append(f'{file.relative_to(tests)} imports {module}')
    assert not wrong


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
CONFIG = """
[mypy]
ignore_missing_imports = True
[mypy-torch.*,transformers.*,numpy.*,mmengine.*,wrapt.*,matplotlib.*]
follow_imports = skip
"""


@pytest.mark.slow
def test_mypy_checks_a_script_of_a_user(tmp_path):
    pytest.importorskip('mypy')
    lines = ['import lm4ve', 'import lm4ve.tasks.vqa', *SCRIPT]
    (tmp_path / 'script.py').write_text('\n'.join(lines))
    (tmp_path / 'mypy.ini').write_text(CONFIG)
    command = '-m mypy --no-error-summary --follow-imports silent script.py'.split()
    done = subprocess.run(
        [sys.executable, *command],
        text=True,
        capture_output=True,
        cwd=tmp_path,
        env=dict(MYPYPATH=str(PACKAGE.parent)),
    )
    answers = done.stdout.splitlines()
    for answer, (code, expected) in zip(answers, SCRIPT.items(), strict=True):
        assert expected in answer, code
        assert 'is "Any"' not in answer, code


def test_dir_and_star_give_what_is_public():
    names: dict = {}
    exec('from lm4ve import *', names)
    assert names.keys() - {'__builtins__'} == {*lm4ve.__all__} < {*dir(lm4ve)}
    assert all(getattr(lm4ve, name) is not None for name in dir(lm4ve))


def test_the_stub_of_a_task_lists_what_its_tables_do():
    for task in all_tasks():
        package = sys.modules[task.package]
        listed = set()
        for module, names in [*task.registers.items(), *task.exports.items()]:
            listed |= {(f'{task.package}.{module}', name) for name in names}
        stub = Path(package.__file__).with_suffix('.pyi')
        assert imported_by_stub(stub) == listed | {('lm4ve.tasks.base.task', 'Task')}
        assert dir(package) == package.__all__ == sorted(name for _, name in listed)


def imported_by_stub(stub: Path) -> set[tuple[str, str]]:
    """Return the modules that a stub imports from, each with a name that it gets."""
    found = set()
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module, alias.asname) for alias in node.names}
    return found
