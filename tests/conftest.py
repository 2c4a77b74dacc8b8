"""What every test gets: one thread, the same random numbers, and no word to any network."""

import collections
import contextlib
import functools
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')

import lm4ve.commands  # noqa: E402, F401, I001  (before torch, whose threads read what this sets)
import torch  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

import lm4ve.openmmlab  # noqa: E402, F401  (types and repairs, in every test)
from tests.helpers.families import write_huggingface  # noqa: E402
from tests.helpers.quick_mmengine import quicken  # noqa: E402
from tests.helpers.remembered_runs import forget_runs  # noqa: E402
from tests.helpers.rounding import Rounding  # noqa: E402
from tests.helpers.shrink import shrinker_of  # noqa: E402
from tests.helpers.tasks import TESTS  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    """Begin with the files that take longest, so that no process ends long after the other.

    ``make test`` gives each file to one process (``--dist loadfile``), which so makes
    the fixtures of a module once.
    """
    if not hasattr(config, 'workerinput'):
        return
    seconds_of_file = collections.Counter()
    for item in items:
        seconds_of_file[item.path] += _expected_seconds(item)
    items.sort(key=lambda item: -seconds_of_file[item.path])


def _expected_seconds(item) -> float:
    """How long a test takes, about."""
    if item.get_closest_marker('slurm'):
        return 60
    if item.get_closest_marker('slow'):
        return 8
    return 0.2


def pytest_addoption(parser):
    group = parser.getgroup(
        'rounding', 'Rounding as on another CPU (tests/helpers/rounding.py)'
    )
    group.addoption(
        '--ulp', type=int, default=0, help='change matrix products by up to ULP ulp'
    )
    group.addoption(
        '--ulp-seed', type=int, default=0, help='other random numbers for --ulp'
    )
    group = parser.getgroup('golden', 'Stored results of the shipped configs')
    group.addoption(
        '--write-golden',
        action='store_true',
        help='store what tests/zoo/test_golden.py measures instead of comparing it',
    )


def pytest_configure(config):
    if config.option.ulp:
        config.rounding = Rounding(config.option.ulp, config.option.ulp_seed)
        config.rounding.install()


def pytest_unconfigure(config):
    if config.option.ulp:
        config.rounding.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """With ``--ulp``, a test rounds at random, and repeatably if it is marked ``bitwise``."""
    with _rounding_of(item, item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    """With ``--ulp``, a shared fixture rounds alike whichever test asks for it first."""
    if fixturedef.scope == 'function':
        return (yield)
    with _rounding_of(request.node, f'{request.node.nodeid} {fixturedef.argname}'):
        return (yield)


def _rounding_of(node, key):
    if not node.config.option.ulp:
        return contextlib.nullcontext()
    bitwise = node.get_closest_marker('bitwise') is not None
    return node.config.rounding.during(key, repeatable=bitwise)


@pytest.fixture(scope='session', autouse=True)
def quick_mmengine():
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch.setattr)
        yield


@pytest.fixture(scope='session', autouse=True)
def own_cache(tmp_path_factory):
    """The user's cache is neither read nor written, by processes of a test neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LM4VE_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def nothing_left_over_from_a_run():
    """A Runner sets MMEngine's default scope for good; not beyond its test.

    A command sets ``LOCAL_RANK``, which other trainers take for a launcher's.
    """
    forget_runs()
    os.environ.pop('LOCAL_RANK', None)
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory):
    """``checkpoints(variant, **options)``: a Hugging Face folder, written once.

    Takes what :func:`tests.helpers.families.write_huggingface` takes; returns a str.
    """

    @functools.cache
    def get(variant: str, **options) -> str:
        folder = tmp_path_factory.mktemp(variant)
        return str(write_huggingface(folder, variant, **options))

    return get


@pytest.fixture(scope='module')
def tiny_files(tmp_path_factory):
    """The working folder of the shrunk configs, with the files that they name."""
    return tmp_path_factory.mktemp('tiny_files')


@pytest.fixture
def shrinker(request, tiny_files, monkeypatch):
    """Makes configs small: that of the task in whose folder the tests are."""
    (task,) = (name for name in TESTS if TESTS[name] == request.path.parent)
    made = shrinker_of(task, tiny_files)
    made.enter(monkeypatch)
    return made


@pytest.fixture
def fails(monkeypatch, capsys):
    """``fails(name, *args)`` runs a tool as a command and returns its one message."""

    def run(name: str, *args) -> str:
        path = Path(__file__).parents[1] / 'tools' / name
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(path), run_name='__main__')
        printed = capsys.readouterr().err
        assert end.value.code == 2
        assert 'Traceback' not in printed
        assert printed.count('error: ') == 1
        return printed.partition('error: ')[2]

    return run
