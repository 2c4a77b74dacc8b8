"""open3d: found or named, and the same points in any order and in any number of processes."""

import importlib.abc
import sys

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lm4ve.errors import UserError
from lm4ve.geometry import surfaces
from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.tasks import pointcloud as pc
from lm4ve.tasks.pointcloud.datasets.readers import read_points
from tests.helpers.pointcloud import clouds as c


class Refuses(importlib.abc.MetaPathFinder):
    """An import of open3d that ends as on a machine that lacks something."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == 'open3d':
            raise self.error
        return None


LACKS = {
    'package': (
        ModuleNotFoundError("No module named 'open3d'"),
        'pip install open3d-cpu',
    ),
    'libusb': ('libusb-1.0.so.0', 'pip install libusb-package'),
    'EGL': ('libEGL.so.1', 'apt-get install libegl1'),
    'GL': ('libGL.so.1', 'apt-get install libgl1'),
    'IDN': ('libidn2.so.0', 'apt-get install libidn2-0'),
    'another': ('libfoo.so.3', "'libfoo'"),
}


@pytest.mark.parametrize('missing, fix', LACKS.values(), ids=LACKS)
def test_what_open3d_lacks_is_named_in_one_line(missing, fix, tmp_path, monkeypatch):
    if isinstance(missing, str):
        missing = ImportError(
            f'{missing}: cannot open shared object file: No such file'
        )
    c.write_mesh(tmp_path / 'whole.off')
    for name in [n for n in sys.modules if n.partition('.')[0] == 'open3d']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [Refuses(missing), *sys.meta_path])
    load_open3d.cache_clear()
    try:
        with pytest.raises(UserError, match='open3d cannot be imported') as caught:
            read_points(tmp_path / 'whole.off')
    finally:
        load_open3d.cache_clear()
    message = str(caught.value)
    assert fix in message and len(message.splitlines()) == 1
    assert 'fetch it again' not in message  # the file is whole


@pytest.mark.parametrize('name', surfaces.PRIMITIVES)
def test_a_primitive_depends_on_its_generator_alone(name):
    first = surfaces.sample_primitive(name, 50, np.random.default_rng(3))
    load_open3d().utility.random.seed(99)
    surfaces.sample_primitive('torus', 7, np.random.default_rng(4))
    again = surfaces.sample_primitive(name, 50, np.random.default_rng(3))
    other = surfaces.sample_primitive(name, 50, np.random.default_rng(5))
    assert first.shape == (50, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_points_do_not_depend_on_workers_or_on_where_a_run_resumes(tmp_path):
    folder = tmp_path / 'train/x'
    folder.mkdir(parents=True)
    for number, ending in enumerate(('off', 'stl', 'ply', 'off', 'stl', 'ply')):
        c.write_mesh(folder / f'{number}.{ending}')
    data = pc.PointCloudFolder(str(tmp_path), num_samples=40)
    # The main process draws before it forks, as after a validation without workers.
    alone = [data[i]['points'] for i in range(6)]
    assert len({points.tobytes() for points in alone}) == 6

    def read(order, workers):
        loader = DataLoader(data, None, sampler=order, num_workers=workers)
        return [batch['points'] for batch in loader]

    order = [4, 1, 5, 0, 3, 2]
    for workers in (0, 2):
        expected = [alone[index] for index in order]
        assert np.array_equal(read(order, workers), expected)
        assert np.array_equal(read(order[3:], workers), expected[3:])
