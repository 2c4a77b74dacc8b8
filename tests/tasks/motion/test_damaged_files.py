"""Damaged data end in one message, or are skipped and counted; two runs do not meet."""

import json
import os
import random
import shutil

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.motion import (
    Argoverse1Reader,
    Argoverse2Reader,
    MotionDataset,
    SceneCache,
    preprocess_split,
)
from lm4ve.tasks.motion.models.regions import Regions


def mutations(path, count=60, seed=0):
    """Write the file with bytes changed, dropped, put in, or cut off, one way at a time."""
    whole, rng = path.read_bytes(), random.Random(seed)
    for i in range(count):
        data = bytearray(whole)
        at = rng.randrange(min(len(data), 600) if i % 2 else len(data))
        if i % 4 == 0:
            data[at] = rng.randrange(256)
        elif i % 4 == 1:
            del data[at : at + rng.randrange(1, 9)]
        elif i % 4 == 2:
            data[at:at] = bytes(rng.choice(b'0123456789-.e,{}[]\n\xff') for _ in range(4))
        else:
            del data[at:]
        path.write_bytes(data)
        yield data


def outcome(read, *args):
    try:
        read(*args)
    except UserError as e:
        assert 'Fix:' in str(e)
        return 'refused'
    return 'read'


@pytest.mark.parametrize('name', ['*_tableidx_to_laneid_map.json', '*_halluc_bbox_table.npy'])
def test_damaged_tables_of_a_map_end_in_one_message(name, argoverse1, tmp_path):
    root = shutil.copytree(argoverse1, tmp_path / 'av1')
    (path,) = sorted((root / 'map_files').glob(name))[:1]
    city = path.name[:3]
    outcomes = [
        outcome(Argoverse1Reader(root / 'train/data', root / 'map_files').city_map, city)
        for _ in mutations(path)
    ]
    assert 'refused' in outcomes


def test_damaged_sequences_end_in_one_message(argoverse1, argoverse2, tmp_path):
    one, two = (
        shutil.copytree(argoverse1, tmp_path / 'a'),
        shutil.copytree(argoverse2, tmp_path / 'b'),
    )
    readers = (Argoverse1Reader(one / 'val/data', one / 'map_files'), Argoverse2Reader(two / 'val'))
    for reader in readers:
        path = reader.files()[0]
        assert 'refused' in [outcome(reader.read, path) for _ in mutations(path)]


def test_a_file_is_skipped_and_counted_whatever_it_raises(reader1, tmp_path, monkeypatch):
    def checked(self, table, path):
        if path.name == '1.csv':
            raise RecursionError('deep')
        return original(self, table, path)

    original = Argoverse1Reader.checked
    monkeypatch.setattr(Argoverse1Reader, 'checked', checked)
    footer = preprocess_split(reader1, tmp_path / 'c', quiet=True)
    assert footer['skipped'] == {'unreadable': 1} and footer['count'] == 7
    assert '1.csv' in footer['examples'][0] and 'RecursionError' in footer['examples'][0]


def test_damaged_caches_are_refused_without_asking(reader1, tmp_path):
    preprocess_split(reader1, tmp_path / 'c', quiet=True)
    whole = (tmp_path / 'c').read_bytes()
    MotionDataset(str(tmp_path / 'c'))
    for data in mutations(tmp_path / 'c', 100):
        if data != whole:
            # A byte of the note about skipped files may change; nothing that is read does.
            found = outcome(MotionDataset, str(tmp_path / 'c'))
            assert found == 'refused' or SceneCache(tmp_path / 'c', verify=True)
    content = bytearray(whole)
    content[5000] ^= 1
    (tmp_path / 'c').write_bytes(content)
    with pytest.raises(UserError, match='another SHA-256'):
        MotionDataset(str(tmp_path / 'c'))


def test_a_second_run_on_one_output_is_refused(reader1, tmp_path):
    class Watched(Argoverse1Reader):
        def read(self, path):
            with pytest.raises(UserError, match="Another run is making '.*c'.*Fix: wait"):
                preprocess_split(reader1, tmp_path / 'c', quiet=True)
            return super().read(path)

    reader = Watched(reader1.data_dir, reader1.map_dir)
    assert preprocess_split(reader, tmp_path / 'c', quiet=True)['count'] == 8
    assert [p.name for p in tmp_path.iterdir()] == ['c']
    # What a killed run holds is released with its process: its lock is a file without an owner.
    (tmp_path / '.d.lock').touch()
    assert preprocess_split(reader1, tmp_path / 'd', quiet=True)['count'] == 8
    # A worker that outlives its run does not keep the lock.
    assert preprocess_split(reader1, tmp_path / 'e', 2, chunk_size=2, quiet=True)['count'] == 8


def test_what_killed_runs_left_is_cleared(reader1, tmp_path):
    half = tmp_path / 'c.parts'
    half.mkdir()
    (half / '000000').write_bytes(b'of a run that was killed before it said of which files')
    left = tmp_path / '.c.nobody-1-0123abcd.tmp'
    left.write_bytes(b'x')
    os.utime(left, (0, 0))
    preprocess_split(reader1, tmp_path / 'c', quiet=True)
    half.mkdir()  # killed after the cache was whole
    (half / 'source').write_text('x')
    preprocess_split(reader1, tmp_path / 'c', quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ['c']


_HULL = [[0, 0], [1, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize(
    'centers, hulls',
    [
        ([[1, 2]], [[[0, 0], [1, 1], [2, 2], [3, 3]]]),  # no surface
        ([[1, 2]], [_HULL, _HULL]),
        ([[1, 2, 3]], [_HULL]),
        ([[1, float('nan')]], [_HULL]),
        ([[1, 2]], [[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]]),
        ([1, 2], _HULL),
    ],
)
def test_damaged_regions_end_in_one_message(centers, hulls, tmp_path):
    path = tmp_path / 'regions.json'
    path.write_text(json.dumps(dict(centres=centers, hulls=hulls)))
    with pytest.raises(UserError, match='regions.json. is damaged.*Fix'):
        Regions.load(str(path))
