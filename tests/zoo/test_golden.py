"""Every shipped config gives what it gave before, and old checkpoints still load.

What is stored lies in ``tests/zoo/golden``. A change that is meant to alter it stores
the new results: ``pytest tests/zoo/test_golden.py --write-golden -n 0``. Read the diff
before you commit it.

A few configs run in ``make test``; all of them have the marker ``walk``.
"""

import pytest

from tests.helpers.golden import Store, differences, measure
from tests.helpers.shrink import shrinker_of
from tests.helpers.tasks import FOLDERS, configs_of

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
