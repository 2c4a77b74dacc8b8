"""Small data in both real layouts, written once by the simulator."""

import pytest

from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader
from lm4ve.tasks.motion.datasets.traffic_files import write_argoverse1
from tests.helpers.motion.argoverse2_files import write_argoverse2

SPLITS = dict(train=8, val=5, test=2)


@pytest.fixture(scope='session')
def argoverse1(tmp_path_factory):
    """A folder with ``<split>/data/*.csv`` and ``map_files``."""
    root = tmp_path_factory.mktemp('argoverse1')
    write_argoverse1(root, SPLITS)
    return root


@pytest.fixture(scope='session')
def argoverse2(tmp_path_factory):
    """A folder with ``<split>/<id>/scenario_<id>.parquet`` and maps."""
    root = tmp_path_factory.mktemp('argoverse2')
    write_argoverse2(root, SPLITS)
    return root


@pytest.fixture(scope='session')
def reader1(argoverse1):
    return Argoverse1Reader(argoverse1 / 'train' / 'data', argoverse1 / 'map_files')


@pytest.fixture(scope='session')
def reader2(argoverse2):
    return Argoverse2Reader(argoverse2 / 'train')


@pytest.fixture(scope='session')
def scenes(reader1):
    return [reader1.read(f) for f in reader1.files()]
