"""Caches: what goes in comes out; kills and damage."""

import pickle
import random
import shutil

import filelock
import joblib
import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks import motion
from lm4ve.tasks.motion import Argoverse1Reader, MotionDataset, SceneCache, preprocess_split


@pytest.fixture
def data(argoverse1, tmp_path):
    """A copy of the training files, which a test may spoil."""
    shutil.copytree(argoverse1 / 'train/data', tmp_path / 'data')
    return tmp_path / 'data'


@pytest.fixture
def cache(reader1, tmp_path):
    preprocess_split(reader1, tmp_path / 'c')
    return tmp_path / 'c'


def assert_same(a, b):
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(vars(b)[name], value, atol=2e-5, err_msg=name)
        else:
            assert vars(b)[name] == value, name


def test_cache_holds_all_files_in_order(scenes, reader1, tmp_path):
    pickle.dumps(reader1)  # as joblib does for worker processes; threads start faster
    with joblib.parallel_config('threading'):
        footer = preprocess_split(reader1, tmp_path / 'c', workers=2, chunk_size=3)
    cache = SceneCache(tmp_path / 'c', verify=True)
    assert footer['count'] == len(cache) == len(scenes) and footer['skipped'] == {}
    for a, b in zip(scenes, cache, strict=True):
        assert_same(a, b)


def test_killed_run_resumes(data, argoverse1, tmp_path):
    class Killed(Argoverse1Reader):
        left = 5

        def read(self, path):
            Killed.left -= 1
            if Killed.left < 0:
                raise KeyboardInterrupt
            return super().read(path)

    with pytest.raises(KeyboardInterrupt):
        preprocess_split(Killed(data, argoverse1 / 'map_files'), tmp_path / 'c', chunk_size=2)
    assert not (tmp_path / 'c').exists()
    Killed.left = 4  # of eight files: two chunks of two are there
    footer = preprocess_split(Killed(data, argoverse1 / 'map_files'), tmp_path / 'c', chunk_size=2)
    assert footer['count'] == 8 and not (tmp_path / 'c.parts').exists()
    whole = Argoverse1Reader(data, argoverse1 / 'map_files')
    assert preprocess_split(whole, tmp_path / 'd')['sha256'] == footer['sha256']


def test_finished_cache_is_kept_unless_files_changed(data, argoverse1, tmp_path):
    reader = Argoverse1Reader(data, argoverse1 / 'map_files')
    footer = preprocess_split(reader, tmp_path / 'c')
    time = (tmp_path / 'c').stat().st_mtime_ns
    with filelock.FileLock(tmp_path / '.c.lock'), pytest.raises(filelock.Timeout):
        preprocess_split(reader, tmp_path / 'c')
    assert preprocess_split(reader, tmp_path / 'c') == footer
    assert (tmp_path / 'c').stat().st_mtime_ns == time
    (data / '1.csv').unlink()
    with pytest.raises(UserError, match='cache of other files'):
        preprocess_split(reader, tmp_path / 'c')


def test_corrupt_files_are_skipped_and_counted(data, argoverse1, tmp_path):
    text = (data / '1.csv').read_text()
    (data / '1.csv').write_text(text.replace('CITY_NAME', 'city'))
    (data / '2.csv').write_text(text.replace('AGENT', 'OTHERS'))
    (data / '3.csv').write_text(text.replace(',PIT', ',NYC').replace(',MIA', ',NYC'))
    (data / '4.csv').write_bytes(b'\xff\x00')
    reader = Argoverse1Reader(data, argoverse1 / 'map_files')
    footer = preprocess_split(reader, tmp_path / 'c', chunk_size=3)
    assert footer['count'] == 4 and sum(footer['skipped'].values()) == 4
    assert footer['skipped']['no focal agent'] == footer['skipped']['unknown city'] == 1
    assert len(footer['examples']) == 4 and '1.csv' in footer['examples'][0]
    with pytest.raises(motion.SceneError, match='1.csv.*CITY_NAME'):
        preprocess_split(reader, tmp_path / 'd', on_corrupt='refuse')


@pytest.mark.parametrize('kept', [None, 0, 0.5, -1])
def test_missing_or_cut_cache_names_the_tool(kept, cache):
    data = cache.read_bytes()
    cache.unlink()
    if kept is not None:
        cache.write_bytes(data[: int(kept * len(data)) if kept >= 0 else kept])
    for read in (SceneCache, MotionDataset):
        with pytest.raises(UserError, match='tools/motion/preprocess.py'):
            read(str(cache))


def test_damaged_cache_never_gives_other_scenes(cache):
    whole, rng = cache.read_bytes(), random.Random(0)
    scenes = pickle.dumps(list(SceneCache(cache)))
    refused = 0
    for i in range(100):
        at = rng.randrange(len(whole))
        changes = (1, rng.randbytes(1)), (rng.randrange(1, 9), b''), (0, rng.randbytes(4))
        kept, new = changes[i % 3]
        cache.write_bytes(whole[:at] + new + whole[at + kept :])
        try:
            # A byte of the note about skipped files may change, nothing that is read.
            assert pickle.dumps(list(MotionDataset(str(cache)).scenes)) == scenes
        except UserError:
            refused += 1
    assert refused > 90


def test_dataset_survives_pickling_and_selects_indices(cache, scenes):
    dataset = MotionDataset(str(cache), indices=[4, 1])
    copy = pickle.loads(pickle.dumps(dataset))
    found = [copy[i]['scene'].scene_id for i in range(len(copy))]
    assert found == [scenes[4].scene_id, scenes[1].scene_id]
    assert len(MotionDataset(str(cache), indices=3)) == 3
    assert len(MotionDataset(str(cache), indices=99)) == len(scenes)
