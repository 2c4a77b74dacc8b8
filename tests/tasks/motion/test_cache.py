"""Caches: what goes in comes out; kills, damage and bad files."""

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.motion import (
    Argoverse1Reader,
    Argoverse2Reader,
    MotionDataset,
    SceneCache,
    SceneError,
    preprocess_split,
)
from lm4ve.tasks.motion.datasets.cache import pack, unpack


@pytest.fixture
def data(argoverse1, tmp_path):
    """A copy of the training files, which a test may spoil."""
    shutil.copytree(argoverse1 / 'train/data', tmp_path / 'data')
    return tmp_path / 'data'


def reader_of(data, argoverse1):
    return Argoverse1Reader(data, argoverse1 / 'map_files')


def assert_same(a, b):
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(vars(b)[name], value, atol=2e-5, err_msg=name)
        else:
            assert vars(b)[name] == value, name


def test_a_scene_comes_back(scenes):
    for s in scenes[:3]:
        assert_same(s, unpack(pack(s)))


@pytest.mark.parametrize('workers', [1, 2])
def test_a_cache_holds_all_files_in_order(workers, scenes, reader1, tmp_path):
    footer = preprocess_split(reader1, tmp_path / 'c', workers, chunk_size=3, quiet=True)
    cache = SceneCache(tmp_path / 'c', verify=True)
    assert footer['count'] == len(cache) == len(scenes)
    assert footer['skipped'] == {}
    for a, b in zip(scenes, cache, strict=True):
        assert_same(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ['c']


def test_a_killed_run_goes_on_where_it_stopped(data, argoverse1, tmp_path):
    class Killed(Argoverse1Reader):
        left = 5
        seen: list = []

        def read(self, path):
            if self.left == 0:
                raise KeyboardInterrupt
            type(self).left -= 1
            self.seen.append(path.name)
            return super().read(path)

    reader = Killed(data, argoverse1 / 'map_files')
    with pytest.raises(KeyboardInterrupt):
        preprocess_split(reader, tmp_path / 'c', chunk_size=2, quiet=True)
    assert not (tmp_path / 'c').exists()
    # Two chunks are done; of one of them the last bytes never got to the disk.
    part = tmp_path / 'c.parts/000001'
    part.write_bytes(part.read_bytes()[:-5])
    Killed.left, Killed.seen = 100, []
    footer = preprocess_split(reader, tmp_path / 'c', chunk_size=2, quiet=True)
    names = [f.name for f in reader.files()]
    assert Killed.seen == names[2:]
    assert footer['count'] == len(names)
    whole = tmp_path / 'whole'
    preprocess_split(Killed(data, argoverse1 / 'map_files'), whole, quiet=True)
    assert SceneCache(whole).footer['sha256'] == footer['sha256']


def test_a_finished_cache_is_not_made_again_nor_mistaken(data, argoverse1, tmp_path):
    first = preprocess_split(reader_of(data, argoverse1), tmp_path / 'c', quiet=True)
    time = (tmp_path / 'c').stat().st_mtime_ns
    assert preprocess_split(reader_of(data, argoverse1), tmp_path / 'c', quiet=True) == first
    assert (tmp_path / 'c').stat().st_mtime_ns == time
    (data / '1.csv').unlink()
    with pytest.raises(UserError, match='cache of other files'):
        preprocess_split(reader_of(data, argoverse1), tmp_path / 'c', quiet=True)


def spoil(data):
    table = pd.read_csv(data / '1.csv')
    table.drop(columns='X').to_csv(data / '1.csv', index=False)
    table[table.OBJECT_TYPE != 'AGENT'].to_csv(data / '2.csv', index=False)
    table.assign(CITY_NAME='NYC').to_csv(data / '3.csv', index=False)
    table.assign(Y=np.nan).to_csv(data / '4.csv', index=False)


def test_bad_files_are_skipped_and_counted_by_kind(data, argoverse1, tmp_path):
    spoil(data)
    footer = preprocess_split(reader_of(data, argoverse1), tmp_path / 'c', chunk_size=3, quiet=True)
    assert footer['skipped'] == {
        'missing columns': 1,
        'no focal agent': 1,
        'unknown city': 1,
        'not finite': 1,
    }
    assert footer['count'] == len(list(data.iterdir())) - 4
    assert len(footer['examples']) == 4 and '1.csv' in footer['examples'][0]
    assert len(SceneCache(tmp_path / 'c', verify=True)) == footer['count']


def test_a_scenario_with_a_damaged_map_does_not_end_the_run(argoverse2, tmp_path):
    split = shutil.copytree(argoverse2 / 'val', tmp_path / 'val')
    maps = sorted(split.glob('*/*.json'))
    for path, points in zip(maps, ([], [dict(x='left', y=0)]), strict=False):
        content = json.loads(path.read_text())
        next(iter(content['lane_segments'].values()))['left_lane_boundary'] = points
        path.write_text(json.dumps(content))
    footer = preprocess_split(Argoverse2Reader(split), tmp_path / 'c', quiet=True)
    assert footer['skipped'] == {'damaged map': 2} and footer['count'] == len(maps) - 2
    with pytest.raises(SceneError, match='map.*damaged.*no points.*Fix:'):
        preprocess_split(Argoverse2Reader(split), tmp_path / 'd', on_corrupt='refuse', quiet=True)


def test_old_names_of_preprocessing_work_and_name_the_new_ones(reader1, tmp_path):
    from lm4ve.tasks.motion import preprocess

    with pytest.warns(DeprecationWarning, match='preprocess_split') as warned:
        preprocess(reader1, tmp_path / 'c', on_bad='skip', quiet=True)
    assert any("on_corrupt='skip'" in str(w.message) for w in warned)


def test_bad_files_can_be_refused(data, argoverse1, tmp_path):
    spoil(data)
    with pytest.raises(UserError, match='1.csv.*lacks the column'):
        preprocess_split(
            reader_of(data, argoverse1), tmp_path / 'c', on_corrupt='refuse', quiet=True
        )
    with pytest.raises(UserError, match='on_corrupt'):
        preprocess_split(reader_of(data, argoverse1), tmp_path / 'c', on_corrupt='ignore')


def test_a_split_of_bad_files_alone_is_an_error(data, argoverse1, tmp_path):
    for f in data.iterdir():
        f.write_text('nonsense\n1\n')
    with pytest.raises(UserError, match='None of the 8 files is usable'):
        preprocess_split(reader_of(data, argoverse1), tmp_path / 'c', quiet=True)


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda b: b[: len(b) // 2], 'not written to its end'),
        (lambda b: b[:-1], 'not written to its end'),
        (lambda b: b'', 'not written to its end'),
        (lambda b: b'PK' + b[2:], 'not written to its end'),
        (lambda b: b[:-100] + bytes(40) + b[-60:], 'footer|index'),
    ],
)
def test_a_half_written_or_damaged_cache_is_named(damage, message, reader1, tmp_path):
    preprocess_split(reader1, tmp_path / 'c', quiet=True)
    (tmp_path / 'c').write_bytes(damage((tmp_path / 'c').read_bytes()))
    with pytest.raises(UserError, match=message):
        SceneCache(tmp_path / 'c')


def test_changed_bytes_do_not_have_the_footers_hash(reader1, tmp_path):
    preprocess_split(reader1, tmp_path / 'c', quiet=True)
    content = bytearray((tmp_path / 'c').read_bytes())
    content[5000] ^= 1
    (tmp_path / 'c').write_bytes(content)
    SceneCache(tmp_path / 'c')
    with pytest.raises(UserError, match='another SHA-256'):
        MotionDataset(str(tmp_path / 'c'), verify=True)


def test_a_missing_cache_names_the_tool(tmp_path):
    with pytest.raises(UserError, match='tools/motion/preprocess.py'):
        MotionDataset(str(tmp_path / 'c'))


def test_a_dataset_survives_pickling_and_takes_indices(reader1, scenes, tmp_path):
    preprocess_split(reader1, tmp_path / 'c', quiet=True)
    dataset = MotionDataset(str(tmp_path / 'c'), indices=[4, 1])
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy[i]['scene'].scene_id for i in range(len(copy))] == [
        scenes[4].scene_id,
        scenes[1].scene_id,
    ]
    assert len(MotionDataset(str(tmp_path / 'c'), indices=3)) == 3
    assert len(MotionDataset(str(tmp_path / 'c'), indices=99)) == len(scenes)
