"""Every task has the same file names, and its table says what its modules register."""

import importlib
import pkgutil
from collections import defaultdict
from pathlib import Path

import pytest

from lm4ve import registry
from lm4ve.tasks import TASKS, get_task

#: Registering modules lie in these, for every task, each a module or a package.
PLACES = {
    *('datasets', 'demo', 'loops', 'metrics', 'models', 'optim', 'transforms', 'visualization')
}
#: Task -> a package without which its modules do not import.
NEEDS = {'image': 'mmpretrain', 'video': 'mmaction', 'vqa': 'mmpretrain', 'rooms': 'mmpretrain'}
REGISTRIES = [r for r in vars(registry).values() if isinstance(r, registry.LazyRegistry)]


def modules_of(package: str) -> list[str]:
    """Return the names of all modules below a package, without importing them."""
    folder = Path(importlib.import_module(package).__file__).parent
    found = pkgutil.walk_packages([str(folder)], f'{package}.', onerror=lambda name: None)
    return [module.name for module in found]


@pytest.mark.parametrize('name', TASKS)
def test_the_table_is_what_importing_the_tasks_modules_registers(name):
    pytest.importorskip(NEEDS.get(name, 'torch'))
    task = get_task(name)
    for module in modules_of(task.package):
        importlib.import_module(module)
    registered = defaultdict(set)
    for r in REGISTRIES:
        for key, value in r.module_dict.items():
            place = value.__module__.removeprefix(f'{task.package}.')
            if place != value.__module__:
                registered[place].add(key)
    assert registered == {module: set(names) for module, names in task.registers.items()}
    assert {module.partition('.')[0] for module in registered} <= PLACES
    package = importlib.import_module(task.package)
    assert all(getattr(package, n) is not None for names in task.exports.values() for n in names)


@pytest.mark.parametrize('name', TASKS)
def test_only_the_demo_imports_the_demo(name):
    """What production code uses must not lie in a demo."""
    package = get_task(name).package
    folder = Path(importlib.import_module(package).__file__).parent
    for file in folder.rglob('*.py'):
        if 'demo' not in file.relative_to(folder).parts:
            assert f'{package}.demo' not in file.read_text(), file.name
