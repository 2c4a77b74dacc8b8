"""Readers against what was written, av2's own readers, and bad files."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader, SceneError, VectorizeScene
from lm4ve.tasks.motion.datasets.argoverse1 import Argoverse1Map
from lm4ve.tasks.motion.datasets.argoverse2 import center_line, read_map
from lm4ve.tasks.motion.demo.traffic import city_lanes
from lm4ve.tasks.motion.demo.traffic_files import write_argoverse1_map
from lm4ve.tasks.motion.scene import heading_of, resample
from lm4ve.tasks.motion.transforms import FlipScene, MaskHistory, fill_gaps


# ------------------------------------------------------------------ content
def test_argoverse1_rows_become_positions(reader1):
    path = reader1.files()[0]
    scene, table = reader1.read(path), pd.read_csv(path)
    assert scene.positions.shape[1] == 50 and scene.history_steps == 20
    assert scene.valid.sum() == len(table)
    times = sorted(table.TIMESTAMP.unique())
    for _, row in table.sample(40, random_state=0).iterrows():
        a = scene.track_ids.index(row.TRACK_ID)
        t = times.index(row.TIMESTAMP)
        assert scene.valid[a, t]
        assert scene.positions[a, t].tolist() == [row.X, row.Y]
    agent = table[table.OBJECT_TYPE == 'AGENT'].TRACK_ID.iloc[0]
    assert scene.track_ids[scene.focal] == agent
    assert scene.city == table.CITY_NAME[0]


def test_argoverse1_map_is_the_city(argoverse1):
    city_map, lanes = Argoverse1Map(argoverse1 / 'map_files', 'PIT'), city_lanes('PIT')
    assert len(city_map.lines) == len(lanes)
    names = ('NONE', 'LEFT', 'RIGHT')
    for row, lane in zip(range(len(lanes)), lanes.values(), strict=True):
        np.testing.assert_allclose(city_map.lines[row], lane.line, atol=1e-5)
        assert names[city_map.turns[row]] == lane.turn
        assert city_map.intersections[row] == (lane.junction >= 0)
        assert city_map.controls[row] == lane.control
    assert set(city_map.turns) == {0, 1, 2}


def test_boxes_come_from_the_table_or_the_center_line(argoverse1, tmp_path):
    shutil.copytree(argoverse1 / 'map_files', tmp_path / 'maps')
    table = tmp_path / 'maps' / 'PIT_10314_halluc_bbox_table.npy'
    with_table = Argoverse1Map(tmp_path / 'maps', 'PIT').boxes
    np.save(table, np.load(table) + 1000)
    moved = Argoverse1Map(tmp_path / 'maps', 'PIT').boxes
    table.unlink()
    without = Argoverse1Map(tmp_path / 'maps', 'PIT').boxes
    np.testing.assert_allclose(moved, with_table + 1000)
    np.testing.assert_allclose(without, with_table, atol=1e-5)


def test_lanes_near_the_focal_agent_are_complete(scenes):
    for s in scenes:
        lines = np.array([lane.line for lane in city_lanes(s.city).values()])
        near = (np.abs(s.to_local(lines)) <= 100).all(-1).any(-1)
        found = VectorizeScene(lane_range=100.0)(dict(scene=s))['lanes']
        assert len(found) == near.sum() > 0


def test_argoverse2_equals_av2s_own_reader(reader2):
    io = pytest.importorskip('av2.datasets.motion_forecasting.scenario_serialization')
    for path in reader2.files()[:3]:
        scene = reader2.read(path)
        theirs = io.load_argoverse_scenario_parquet(path)
        assert scene.scene_id == theirs.scenario_id
        assert scene.track_ids[scene.focal] == theirs.focal_track_id
        assert sorted(scene.track_ids) == sorted(t.track_id for t in theirs.tracks)
        for t in theirs.tracks:
            a = scene.track_ids.index(t.track_id)
            steps = [s.timestep for s in t.object_states]
            assert np.flatnonzero(scene.valid[a]).tolist() == sorted(steps)
            np.testing.assert_array_equal(
                scene.positions[a, steps], [s.position for s in t.object_states]
            )


def test_argoverse2_center_lines_equal_av2s(reader2):
    interpolate = pytest.importorskip('av2.geometry.interpolate')
    (path,) = reader2.files()[0].parent.glob('log_map_archive_*.json')
    lines, inside = read_map(path)
    segments = list(json.loads(path.read_text())['lane_segments'].values())
    assert inside.tolist() == [s['is_intersection'] for s in segments]
    for line, s in zip(lines, segments, strict=True):
        sides = [
            np.array([[p['x'], p['y'], p['z']] for p in s[k]])
            for k in ('left_lane_boundary', 'right_lane_boundary')
        ]
        theirs, _ = interpolate.compute_midpoint_line(*sides)
        np.testing.assert_allclose(line, theirs[:, :2], atol=1e-6)


def test_a_boundary_of_one_point_meets_every_point_of_the_other():
    left = [dict(x=0.0, y=2.0)]
    right = [dict(x=float(x), y=0.0) for x in (0, 9)]
    np.testing.assert_allclose(center_line(left, right)[:, 0], np.arange(10) / 2)


def test_test_splits_have_no_future(argoverse1, argoverse2):
    for reader in (
        Argoverse1Reader(argoverse1 / 'test/data', argoverse1 / 'map_files'),
        Argoverse2Reader(argoverse2 / 'test'),
    ):
        for f in reader.files():
            scene = reader.read(f)
            assert not scene.valid[:, scene.history_steps :].any()
            assert scene.valid[scene.focal, scene.history_steps - 1]


# ----------------------------------------------------------------- geometry
@pytest.mark.parametrize('direction', [0.0, 1.0, -2.5])
def test_heading_is_the_direction_of_travel(direction):
    steps = np.arange(20)[:, None]
    line = steps * np.array([np.cos(direction), np.sin(direction)])
    assert heading_of(line, np.ones(20, bool)) == pytest.approx(direction)


def test_a_standing_agents_heading_is_its_lanes():
    lane = resample(np.array([[0.0, 0.0], [0.0, -30.0]]))[None]
    still = np.zeros((20, 2)) + [0.5, -9.0]
    assert heading_of(still, np.ones(20, bool), lane) == pytest.approx(-np.pi / 2)
    assert heading_of(still, np.ones(20, bool)) == 0


def test_gaps_are_filled_by_the_step_before_else_after():
    x = np.arange(5.0)[None, :, None] + np.zeros(2)
    valid = np.array([[False, True, False, False, True]])
    assert fill_gaps(x, valid)[0, :, 0].tolist() == [1, 1, 1, 1, 4]


def test_a_flip_mirrors_everything_and_turns_left_into_right(scenes):
    plain = VectorizeScene()(dict(scene=scenes[0]))
    flipped = FlipScene(prob=1.0)(VectorizeScene()(dict(scene=scenes[0])))
    for key in ('agents', 'future', 'lanes'):
        np.testing.assert_array_equal(flipped[key], plain[key] * [1, -1])
    assert plain['lane_attributes'][:, 0].any()
    np.testing.assert_array_equal(flipped['lane_attributes'], plain['lane_attributes'] * [-1, 1, 1])


def test_masked_history_looks_like_a_late_start(scenes):
    np.random.seed(0)
    results = MaskHistory(steps=10, prob=1.0)(VectorizeScene()(dict(scene=scenes[0])))
    first = results['agents_valid'][0].argmax()
    assert 1 <= first <= 10
    assert (results['agents'][0, :first] == results['agents'][0, first]).all()
    assert results['agents_valid'].any(axis=1).all()


def test_too_small_a_map_is_named(argoverse1):
    reader = Argoverse1Reader(argoverse1 / 'train/data', argoverse1 / 'map_files', map_range=80.0)
    scene = reader.read(reader.files()[0])
    with pytest.raises(UserError, match='lane_range=100.* needs lanes up to 141'):
        VectorizeScene(lane_range=100.0)(dict(scene=scene))


# ---------------------------------------------------------------- bad files
def agent(table):
    return table.OBJECT_TYPE == 'AGENT'


def half(table):
    return table.TIMESTAMP < np.sort(table.TIMESTAMP.unique())[20]


def last(table):
    return table.TIMESTAMP == np.sort(table.TIMESTAMP.unique())[19]


BAD1 = {
    'missing columns': (
        lambda t: t.drop(columns=['X', 'CITY_NAME']),
        r'lacks the column\(s\) X, CITY_NAME',
    ),
    'no history': (lambda t: t[~(agent(t) & half(t))], 'observed at 0 of 20'),
    'not at the last step': (lambda t: t[~(agent(t) & last(t))], 'not at the last'),
    'unknown city': (lambda t: t.assign(CITY_NAME='NYC'), "no city 'NYC'"),
    'NaN': (lambda t: t.assign(X=t.X.where(t.index != 7)), 'NaN'),
    'a word': (
        lambda t: t.assign(X=t.X.astype(str).where(t.index != 7, 'east')),
        'not a number .*east',
    ),
    'infinite': (lambda t: t.assign(Y=t.Y.where(t.index != 7, np.inf)), 'not a finite'),
    'two cities': (
        lambda t: t.assign(CITY_NAME=np.where(t.index < 5, 'PIT', 'MIA')),
        'names 2 cities',
    ),
    'no focal agent': (lambda t: t[~agent(t)], 'has 0 focal tracks .OBJECT_TYPE AGENT'),
    'steps': (lambda t: t[t.TIMESTAMP < np.sort(t.TIMESTAMP.unique())[33]], '33 time stamps'),
}


@pytest.mark.parametrize('case', BAD1)
def test_a_bad_argoverse1_file_is_named(case, argoverse1, tmp_path):
    change, message = BAD1[case]
    table = pd.read_csv(argoverse1 / 'train/data/1.csv')
    change(table).to_csv(tmp_path / '1.csv', index=False)
    reader = Argoverse1Reader(tmp_path, argoverse1 / 'map_files')
    with pytest.raises(SceneError, match=message) as e:
        reader.read(tmp_path / '1.csv')
    assert 'Fix:' in str(e.value)


def test_an_empty_csv_is_named(argoverse1, tmp_path):
    (tmp_path / '1.csv').write_text('')
    with pytest.raises(SceneError, match='cannot be read as CSV'):
        Argoverse1Reader(tmp_path, argoverse1 / 'map_files').read(tmp_path / '1.csv')


BAD2 = {
    'missing columns': (
        lambda t: t.drop(columns='position_x'),
        r'lacks the column\(s\) position_x',
    ),
    'no history': (
        lambda t: t[(t.track_id != t.focal_track_id) | (t.timestep >= 50)],
        'observed at 0 of 50',
    ),
    'unknown city': (lambda t: t.assign(city='paris'), "no city 'paris'"),
    'NaN': (lambda t: t.assign(position_y=t.position_y.where(t.index != 3)), 'NaN'),
    'no focal agent': (lambda t: t.assign(focal_track_id='9'), "0 focal .*focal_track_id '9'"),
    'steps': (lambda t: t.assign(timestep=t.timestep + 5), 'timesteps 5 to 114'),
}


@pytest.fixture
def scenario(argoverse2, tmp_path):
    """A copy of one scenario: its reader and the two files."""
    source = sorted((argoverse2 / 'train').iterdir())[0]
    folder = shutil.copytree(source, tmp_path / 'train' / source.name)
    return (Argoverse2Reader(tmp_path / 'train'), *folder.glob('*.parquet'), *folder.glob('*.json'))


@pytest.mark.parametrize('case', BAD2)
def test_a_bad_argoverse2_file_is_named(case, scenario):
    reader, path, _ = scenario
    change, message = BAD2[case]
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(SceneError, match=message) as e:
        reader.read(path)
    assert 'Fix:' in str(e.value)


def boundary(points):
    """A map whose only lane has these points on its left."""
    right = [dict(x=0.0, y=0.0), dict(x=9.0, y=0.0)]
    lane = dict(left_lane_boundary=points, right_lane_boundary=right, is_intersection=False)
    return json.dumps(dict(lane_segments={'1': lane}))


def test_a_truncated_parquet_is_named(scenario):
    reader, path, _ = scenario
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SceneError, match='cannot be read as parquet'):
        reader.read(path)


@pytest.mark.parametrize(
    'text, message',
    [
        (None, 'cannot be read'),
        ('{"lane_segments": {', 'damaged'),
        ('{}', 'damaged'),
        ('[]', 'damaged'),
        (boundary([]), 'boundary has no points'),
        (boundary([dict(x='left', y=0.0)]), "could not convert string to float: 'left'"),
        (boundary([dict(x=[1.0], y=0.0)]), 'damaged'),
    ],
)
def test_a_bad_argoverse2_map_is_named(text, message, scenario):
    reader, path, map_path = scenario
    map_path.unlink() if text is None else map_path.write_text(text)
    with pytest.raises(SceneError, match=message):
        reader.read(path)


def test_a_map_without_crossings_and_with_links_to_nowhere_is_read(scenario):
    reader, path, map_path = scenario
    content = json.loads(map_path.read_text())
    del content['pedestrian_crossings']
    for s in content['lane_segments'].values():
        s['successors'] = [123456789]
    expected = reader.read(path).lanes
    map_path.write_text(json.dumps(content))
    np.testing.assert_array_equal(reader.read(path).lanes, expected)


@pytest.mark.parametrize(
    'xml, found',
    [
        ('<ArgoverseVectorMap></ArgoverseVectorMap>', 'it has no lanes'),
        (
            '<ArgoverseVectorMap><way lane_id="7"><tag k="turn_direction" v="NONE"/><tag '
            'k="is_intersection" v="False"/><tag k="has_traffic_control" v="False"/></way>'
            '</ArgoverseVectorMap>',
            'lane 7 has no points',
        ),
    ],
)
def test_argoverse1_maps_without_lanes_are_named(tmp_path, xml, found):
    (tmp_path / 'pruned_argoverse_PIT_10314_vector_map.xml').write_text(xml)
    with pytest.raises(UserError, match=found):
        Argoverse1Map(tmp_path, 'PIT')


def test_missing_and_damaged_argoverse1_maps_are_named(argoverse1, tmp_path):
    with pytest.raises(UserError, match='hd_maps'):
        Argoverse1Map(tmp_path, 'PIT')
    write_argoverse1_map(tmp_path, 'PIT', city_lanes('PIT'))
    (path,) = tmp_path.glob('*.xml')
    path.write_text(path.read_text()[:5000])
    with pytest.raises(UserError, match='damaged'):
        Argoverse1Map(tmp_path, 'PIT')


def test_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r'No \*.csv'):
        Argoverse1Reader(tmp_path, tmp_path).files()
    with pytest.raises(UserError, match=r'No \*/scenario_'):
        Argoverse2Reader(tmp_path).files()
