"""Every shipped config gives what it gave before, and old checkpoints still load.

What is stored lies in ``tests/zoo/golden``. A change that is meant to alter it stores
the new results: ``pytest tests/zoo/test_golden.py --write-golden -n 0``. Read the diff
before you commit it.

A few configs run in ``make test``; all of them have the marker ``walk``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lm4ve.runner.config import read_config
from lm4ve.study.trainings.grid_files import load_grid
from tests.helpers.golden import (
    ConfigStore,
    Store,
    differences,
    differing_lines,
    flat_lines,
    measure,
)
from tests.helpers.shrink import shrinker_of
from tests.helpers.tasks import CONFIGS, FOLDERS, configs_of

#: MMEngine's FSDP needs an accelerator to run.
FSDP = 'vit-b_llama_fsdp_in1k.py'
#: One of each kind, for `make test`.
QUICK = {
    'vit-demo_minilm_digits.py',
    'vit-s_llama_in1k.py',
    'vectornet_llama_argoverse1.py',
    'sqa3d_llama.py',
    'meter-demo_minilm_digit-scenes.py',
}


def trained_configs(task: str) -> list[str]:
    """Return the configs of a task that can train here."""
    names = []
    for name in configs_of(task):
        # Those below robustness/ test what others train.
        if name != FSDP and not name.startswith('robustness/'):
            names.append(name)
    return names


def rows() -> list:
    """Return ``(task, name)`` of each config, marked ``walk`` but for the quick ones."""
    found = []
    for task in FOLDERS:
        for name in trained_configs(task):
            marks = () if name in QUICK else pytest.mark.walk
            found.append(pytest.param(task, name, id=f'{task}/{name}', marks=marks))
    return found


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A working folder a task, with the files that its configs name."""
    return {task: tmp_path_factory.mktemp(task) for task in FOLDERS}


@pytest.mark.parametrize('task, name', rows())
def test_config_gives_its_stored_results(
    task, name, folders, tmp_path, monkeypatch, request
):
    shrinker = shrinker_of(task, folders[task])
    shrinker.enter(monkeypatch)
    found, bounds = measure(shrinker, name, tmp_path)
    store = Store(task)
    if request.config.option.write_golden:
        store.write(name, found)
        return
    differing = differences(found, store.read(name), bounds)
    assert not differing, '\n'.join(differing)


@pytest.mark.parametrize('task', FOLDERS)
def test_results_of_every_config_of_a_task_are_stored(task):
    assert Store(task).names() == trained_configs(task)


def read_only() -> list:
    """Return the files that are read here and run elsewhere, if at all, with their ids.

    They are the config that needs an accelerator, those that test what others train, and
    the grids, of which each variant is a config.
    """
    paths = [FOLDERS['image'] / FSDP]
    paths += sorted((FOLDERS['image'] / 'robustness').glob('*.py'))
    paths += sorted((CONFIGS / 'ablations').glob('*.py'))
    found = []
    for path in paths:
        marks = () if path.name == FSDP else pytest.mark.walk
        name = path.relative_to(CONFIGS).as_posix()
        found.append(pytest.param(path, id=name, marks=marks))
    return found


@pytest.mark.parametrize('path', read_only())
def test_file_has_its_stored_fields(path, request):
    name = path.relative_to(CONFIGS).as_posix()
    found = list(lines_of(path))
    store = ConfigStore()
    if request.config.option.write_golden:
        store.write(name, found)
        return
    assert not list(differing_lines(name, found, store.read()[name]))


def lines_of(path: Path) -> Iterator[str]:
    """Yield the fields of a config; of a grid those of each variant's first training."""
    if path.parent.name != 'ablations':
        yield from flat_lines(read_config(path, set_scope=False).to_dict())
        return
    grid = load_grid(path)
    for variant in grid.variants:
        value = None
        if grid.tune:
            value = grid.tune.values[0]
        options = grid.options(variant, 'test', grid.seeds[0], value)
        cfg = read_config(variant.config, options, set_scope=False)
        yield from flat_lines(cfg.to_dict(), variant.name)
