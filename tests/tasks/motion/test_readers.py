"""Readers against what was written and av2's own, bad files, and caches of what was read."""

import json
import pickle
import random
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest

from lm4ve.demo_data.traffic import build_city
from lm4ve.errors import UserError
from lm4ve.files import sole_use
from lm4ve.geometry.plane import resample
from lm4ve.tasks.motion import (
    Argoverse1Reader,
    Argoverse2Reader,
    MotionDataset,
    SceneCache,
)
from lm4ve.tasks.motion.datasets.argoverse import read_city_map, read_map
from lm4ve.tasks.motion.datasets.cache import preprocess_split
from lm4ve.tasks.motion.structures import SceneError, heading_of
from lm4ve.tasks.motion.transforms.scenes import FlipScene, VectorizeScene


def step(table):
    return np.unique(table.TIMESTAMP, return_inverse=True)[1]


def test_argoverse1_rows_become_positions(reader1):
    path = reader1.files()[0]
    scene = reader1.read(path)
    table = pd.read_csv(path)
    assert scene.positions.shape[1] == 50
    assert scene.history_steps == 20
    assert scene.city == table.CITY_NAME[0]
    agents = table.TRACK_ID.map(scene.track_ids.index)
    steps = step(table)
    assert scene.valid.sum() == len(table)
    assert scene.valid[agents, steps].all()
    np.testing.assert_array_equal(scene.positions[agents, steps], table[['X', 'Y']])
    assert set(agents[table.OBJECT_TYPE == 'AGENT']) == {scene.focal}


def test_argoverse1_map_is_the_city(argoverse1):
    lanes, attributes = read_city_map(argoverse1 / 'map_files', 'PIT')
    city = build_city('PIT')
    np.testing.assert_allclose(lanes, [lane.line for lane in city], atol=1e-5)
    signs = dict(NONE=0, LEFT=-1, RIGHT=1)
    expected = [(signs[lane.turn], lane.junction, lane.control) for lane in city]
    np.testing.assert_array_equal(attributes, expected)


def test_argoverse2_equals_av2s_reader(reader2):
    io = pytest.importorskip('av2.datasets.motion_forecasting.scenario_serialization')
    for path in reader2.files()[:3]:
        scene = reader2.read(path)
        theirs = io.load_argoverse_scenario_parquet(path)
        assert scene.scene_id == theirs.scenario_id
        assert scene.track_ids[scene.focal] == theirs.focal_track_id
        their_ids = [track.track_id for track in theirs.tracks]
        assert sorted(scene.track_ids) == sorted(their_ids)
        for track in theirs.tracks:
            agent = scene.track_ids.index(track.track_id)
            steps = [state.timestep for state in track.object_states]
            positions = [state.position for state in track.object_states]
            assert np.flatnonzero(scene.valid[agent]).tolist() == sorted(steps)
            np.testing.assert_array_equal(scene.positions[agent, steps], positions)


def test_argoverse2_center_lines_equal_av2s(reader2):
    interpolate = pytest.importorskip('av2.geometry.interpolate')
    (path,) = reader2.files()[0].parent.glob('log_map_archive_*.json')
    lanes, attributes = read_map(path)
    segments = list(json.loads(path.read_text())['lane_segments'].values())
    for segment, attribute in zip(segments, attributes.tolist(), strict=True):
        assert attribute == [0, segment['is_intersection'], 0]
    for segment, line in zip(segments, lanes, strict=True):
        left = points_of(segment['left_lane_boundary'])
        right = points_of(segment['right_lane_boundary'])
        theirs, _ = interpolate.compute_midpoint_line(left, right)
        np.testing.assert_allclose(line, theirs[:, :2], atol=1e-6)


def points_of(boundary: list[dict]) -> np.ndarray:
    """Return the points of a lane's boundary in a map file, ``[n, 3]``."""
    return np.array([[point['x'], point['y'], point['z']] for point in boundary])


def test_test_splits_have_no_future(argoverse1, argoverse2):
    first = Argoverse1Reader(argoverse1 / 'test/data', argoverse1 / 'map_files')
    for reader in (first, Argoverse2Reader(argoverse2 / 'test')):
        for path in reader.files():
            scene = reader.read(path)
            _, future_valid = scene.future
            _, history_valid = scene.history
            assert not future_valid.any()
            assert history_valid[-1]


# ----------------------------------------------------------------- geometry
@pytest.mark.parametrize('direction', [0.0, 1.0, -2.5])
def test_heading_is_direction_of_travel(direction):
    line = np.arange(20)[:, None] * np.array([np.cos(direction), np.sin(direction)])
    assert heading_of(line, np.ones(20, bool), line[:0, None]) == pytest.approx(
        direction
    )


def test_standing_agent_has_heading_of_its_lane():
    lane = resample(np.array([[0.0, 0.0], [0.0, -30.0]]), 10)[None]
    still = np.zeros((20, 2)) + [0.5, -9.0]
    assert heading_of(still, np.ones(20, bool), lane) == pytest.approx(-np.pi / 2)
    assert heading_of(still, np.ones(20, bool), lane[:0]) == 0


def test_flip_mirrors_everything_and_swaps_turns(scenes):
    plain = VectorizeScene()(dict(scene=scenes[0]))
    flipped = FlipScene(prob=1.0)(VectorizeScene()(dict(scene=scenes[0])))
    for key in ('agents', 'future', 'lanes'):
        np.testing.assert_array_equal(flipped[key], plain[key] * [1, -1])
    assert plain['lane_attributes'][:, 0].any()
    np.testing.assert_array_equal(
        flipped['lane_attributes'], plain['lane_attributes'] * [-1, 1, 1]
    )


def test_lane_range_beyond_cached_map_is_refused(argoverse1):
    reader = Argoverse1Reader(
        argoverse1 / 'train/data', argoverse1 / 'map_files', map_range=80.0
    )
    with pytest.raises(UserError, match='lane_range.*map_range.*at most 80'):
        VectorizeScene(lane_range=100.0)(dict(scene=reader.read(reader.files()[0])))


# ---------------------------------------------------------------- bad files
BAD1 = {
    'missing columns': lambda t: t.drop(columns=['X', 'CITY_NAME']),
    'no history': lambda t: t[(t.OBJECT_TYPE != 'AGENT') | (step(t) >= 20)],
    'unseen at the last step': lambda t: t[
        (t.OBJECT_TYPE != 'AGENT') | (step(t) != 19)
    ],
    'infinite': lambda t: t.assign(Y=t.Y.where(t.index != 7, np.inf)),
    'two cities': lambda t: t.assign(CITY_NAME=np.where(t.index < 5, 'PIT', 'MIA')),
    'steps': lambda t: t[step(t) < 33],
}
BAD2 = {
    'NaN': lambda t: t.assign(position_y=t.position_y.where(t.index != 3)),
    'no heading': lambda t: t.assign(heading=np.nan),
    'no focal agent': lambda t: t.assign(focal_track_id='9'),
    'early steps': lambda t: t.assign(timestep=t.timestep - 5),
    'late steps': lambda t: t.assign(timestep=t.timestep + 5),
}


@pytest.mark.parametrize('case', BAD1)
def test_bad_argoverse1_file_is_named(case, argoverse1, tmp_path):
    table = pd.read_csv(argoverse1 / 'train/data/1.csv')
    BAD1[case](table).to_csv(tmp_path / '1.csv', index=False)
    with pytest.raises(SceneError, match=r'1\.csv'):
        Argoverse1Reader(tmp_path, argoverse1 / 'map_files').read(tmp_path / '1.csv')


@pytest.mark.parametrize('case', [*BAD2, 'cut'])
def test_bad_argoverse2_file_is_named(case, argoverse2, tmp_path):
    source = sorted((argoverse2 / 'train').iterdir())[0]
    (path,) = shutil.copytree(source, tmp_path / source.name).glob('*.parquet')
    if case == 'cut':
        path.write_bytes(path.read_bytes()[:-200])
    else:
        BAD2[case](pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(SceneError, match='parquet'):
        Argoverse2Reader(tmp_path).read(path)


@pytest.mark.parametrize('damaged', ['<way', '<ArgoverseVectorMap/>'])
def test_bad_argoverse1_map_stops(damaged, tmp_path):
    (tmp_path / 'pruned_argoverse_PIT_10314_vector_map.xml').write_text(damaged)
    for city in ('PIT', 'MIA'):  # the second is missing
        with pytest.raises(UserError, match=f'{city}.*hd_maps'):
            Argoverse1Reader(tmp_path, tmp_path).city_map(city)


@pytest.fixture
def reader(argoverse1, tmp_path):
    """A reader of a copy of the training files, which a test may spoil."""
    shutil.copytree(argoverse1 / 'train/data', tmp_path / 'data')
    return Argoverse1Reader(tmp_path / 'data', argoverse1 / 'map_files')


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


def test_killed_run_resumes(reader, tmp_path):
    class Killed(Argoverse1Reader):
        left = 5

        def read(self, path):
            Killed.left -= 1
            if Killed.left < 0:
                raise KeyboardInterrupt
            return super().read(path)

    killed = Killed(reader.data_dir, reader.map_dir)
    with pytest.raises(KeyboardInterrupt):
        preprocess_split(killed, tmp_path / 'c', chunk_size=2)
    assert not (tmp_path / 'c').exists()
    Killed.left = 4  # of eight files: two chunks of two are there
    footer = preprocess_split(killed, tmp_path / 'c', chunk_size=2)
    assert footer['count'] == 8 and not (tmp_path / 'c.parts').exists()
    assert preprocess_split(reader, tmp_path / 'd')['sha256'] == footer['sha256']


def test_finished_cache_is_kept_unless_files_changed(reader, tmp_path):
    footer = preprocess_split(reader, tmp_path / 'c')
    time = (tmp_path / 'c').stat().st_mtime_ns
    with (
        sole_use(tmp_path / '.c.lock'),
        pytest.raises(UserError, match='Another run works here'),
    ):
        preprocess_split(reader, tmp_path / 'c')
    assert preprocess_split(reader, tmp_path / 'c') == footer
    assert (tmp_path / 'c').stat().st_mtime_ns == time
    (reader.data_dir / '1.csv').unlink()
    with pytest.raises(UserError, match='cache of other files'):
        preprocess_split(reader, tmp_path / 'c')


def test_corrupt_files_are_skipped_and_counted(reader, tmp_path):
    data = reader.data_dir
    text = (data / '1.csv').read_text()
    (data / '1.csv').write_text(text.replace('CITY_NAME', 'city'))
    (data / '2.csv').write_text(text.replace('AGENT', 'OTHERS'))
    (data / '3.csv').write_text(text.replace(',PIT', ',NYC').replace(',MIA', ',NYC'))
    (data / '4.csv').write_bytes(b'\xff\x00')
    footer = preprocess_split(reader, tmp_path / 'c', chunk_size=3)
    assert footer['count'] == 4 and sum(footer['skipped'].values()) == 4
    assert footer['skipped']['no focal agent'] == footer['skipped']['unknown city'] == 1
    assert len(footer['examples']) == 4 and '1.csv' in footer['examples'][0]
    with pytest.raises(SceneError, match='1.csv.*CITY_NAME'):
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
        changes = (
            (1, rng.randbytes(1)),
            (rng.randrange(1, 9), b''),
            (0, rng.randbytes(4)),
        )
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
