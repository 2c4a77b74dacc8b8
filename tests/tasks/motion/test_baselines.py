"""Baselines, submissions, pictures, and the simulator behind the default."""

import dataclasses
import json
import runpy
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.tasks.motion import MotionMetric, MotionVisualizer, SceneCache, forecast_metrics
from lm4ve.tasks.motion.baselines import ConstantVelocity, Kalman, NearestNeighbor
from lm4ve.tasks.motion.demo.traffic import idm, windows
from lm4ve.tasks.motion.demo.traffic_dataset import TrafficDataset
from lm4ve.tasks.motion.demo.traffic_roads import build_city
from lm4ve.tasks.motion.submission import write_submission
from lm4ve.tasks.motion.visualization import save_grid
from tests.helpers.tasks import ROOT


def straight(scene, speed=8.0):
    """The scene with a focal agent that goes straight at constant speed."""
    steps = np.arange(scene.positions.shape[1])[:, None] * 0.1
    positions, valid = scene.positions.copy(), scene.valid.copy()
    positions[scene.focal] = [100.0, 50.0] + steps * speed * np.array([0.6, 0.8])
    valid[scene.focal] = True
    return dataclasses.replace(scene, positions=positions, valid=valid, origin=None, heading=None)


# ---------------------------------------------------------------- baselines
@pytest.mark.parametrize('baseline, close', [(ConstantVelocity(), 1e-9), (Kalman(), 0.1)])
def test_straight_motion_is_continued(baseline, close, scenes):
    scene = straight(scenes[0])
    lines, p = baseline(scene)
    truth = scene.positions[scene.focal, scene.history_steps :]
    assert lines.shape == (1, 30, 2) and p.tolist() == [1.0]
    assert np.abs(lines[0] - truth).max() < close


@pytest.mark.parametrize('baseline', [ConstantVelocity(), Kalman()])
def test_unobserved_steps_are_not_used(baseline, scenes):
    scene = straight(scenes[0])
    scene.valid[scene.focal, 3:15] = False
    expected = baseline(scene)[0]
    scene.positions[scene.focal, 3:15] = 1e6
    np.testing.assert_array_equal(baseline(scene)[0], expected)


def test_kalman_smooths_noise_that_velocity_takes_for_motion(scenes):
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(30):
        scene = straight(scenes[0])
        truth = scene.positions[scene.focal, 20:].copy()
        scene.positions[scene.focal, :20] += rng.normal(0, 0.3, (20, 2))
        errors.append(
            [
                np.linalg.norm(b(scene)[0][0, -1] - truth[-1])
                for b in (ConstantVelocity(), Kalman(0.3, 0.5))
            ]
        )
    velocity, kalman = np.mean(errors, axis=0)
    assert kalman < velocity


def test_the_nearest_neighbor_of_a_known_scene_is_itself(scenes):
    baseline = NearestNeighbor(scenes, k=3)
    scene = scenes[2].moved(1.0, [500.0, -70.0])
    lines, p = baseline(scene)
    truth = scene.positions[scene.focal, scene.history_steps :]
    assert np.abs(lines[0] - truth).max() < 1e-6
    assert p.argmax() == 0 and p.sum() == pytest.approx(1)
    with pytest.raises(UserError, match='at least 6'):
        NearestNeighbor(scenes[:2], k=6)


# -------------------------------------------------------------- submissions
def forecast(steps, scene_id='17', track_id='a'):
    rng = np.random.default_rng(0)
    return dict(
        scene_id=scene_id,
        track_id=track_id,
        trajectories=rng.normal(0, 1, (3, steps, 2)),
        probabilities=np.array([0.2, 0.5, 0.1]),
    )


def test_argoverse1_submission_has_the_servers_rows(tmp_path):
    f = forecast(30)
    write_submission(tmp_path / 'x.h5', [f, dict(f, scene_id='4')], 'argoverse1')
    with h5py.File(tmp_path / 'x.h5') as h:
        assert list(h) == ['argoverse_forecasting']
        rows = h['argoverse_forecasting'][:]
    assert rows.shape == (2 * 3 * 30, 4)
    assert rows[:90, 0].tolist() == [17] * 90 and rows[90, 0] == 4
    np.testing.assert_allclose(rows[:30, 1:3], f['trajectories'][1], atol=1e-6)
    np.testing.assert_allclose(rows[[0, 30, 60], 3], [0.625, 0.25, 0.125])


def test_argoverse2_submission_is_read_by_av2(tmp_path):
    submission = pytest.importorskip('av2.datasets.motion_forecasting.eval.submission')
    f = forecast(60, 'abc')
    write_submission(tmp_path / 'x.parquet', [f], 'argoverse2')
    found = submission.ChallengeSubmission.from_parquet(tmp_path / 'x.parquet')
    p, tracks = found.predictions['abc']
    np.testing.assert_allclose(p, [0.625, 0.25, 0.125])
    np.testing.assert_allclose(tracks['a'], f['trajectories'][[1, 0, 2]])
    assert list(pd.read_parquet(tmp_path / 'x.parquet')) == (submission.SUBMISSION_COL_NAMES)


@pytest.mark.parametrize(
    'name, form, change, message',
    [
        ('x.csv', 'argoverse1', {}, "ends in '.h5'"),
        ('x.parquet', 'argoverse2', {}, r'\[K, 60, 2\]'),
        ('x.h5', 'argoverse1', dict(scene_id='abc'), 'not a number'),
    ],
)
def test_a_submission_that_a_server_refuses_is_named(name, form, change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write_submission(tmp_path / name, [{**forecast(30), **change}], form)


def test_the_metric_writes_a_test_sets_submission(scenes, tmp_path):
    metric = MotionMetric(submission=str(tmp_path / 'x.h5'), format_only=True)
    metric.process(
        None,
        [
            dict(scene=s, trajectories=np.zeros((6, 30, 2)), probabilities=np.full(6, 1 / 6))
            for s in scenes[:2]
        ],
    )
    assert metric.evaluate(2) == {}
    with h5py.File(tmp_path / 'x.h5') as h:
        ids = sorted(set(h['argoverse_forecasting'][:, 0].astype(int)))
    assert ids == sorted(int(s.scene_id) for s in scenes[:2])


# ----------------------------------------------------------------- pictures
def drawn(image, color):
    return (np.abs(image.astype(int) - color).max(-1) < 40).sum()


def test_pictures_show_forecasts_truth_and_history(scenes, tmp_path):
    scene = straight(scenes[0])
    lines, p = ConstantVelocity()(scene)
    visualizer = MotionVisualizer(name='t', vis_backends=[])
    plain = visualizer.add_datasample('a', dict(scene=scene))
    full = visualizer.add_datasample(
        'a',
        dict(scene=scene, trajectories=lines + [0.0, 9.0], probabilities=p),
        out_file=str(tmp_path / 'one.png'),
    )
    red, green, blue = [208, 69, 43], [26, 143, 60], [31, 78, 156]
    assert drawn(full, red) > drawn(plain, red) + 50
    assert drawn(full, green) > 50 and drawn(full, blue) > 50
    save_grid(tmp_path / 'grid.png', [dict(scene=s) for s in scenes[:4]], columns=2)
    import cv2

    one, grid = (cv2.imread(str(tmp_path / f'{n}.png')) for n in ('one', 'grid'))
    np.testing.assert_array_equal(one[..., ::-1], full)
    assert grid.shape[0] > 1.8 * one.shape[0] and grid.shape[1] > 1.8 * one.shape[1]


def test_labels_of_three_forecasts_keep_off_each_other_and_the_truth(scenes):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from lm4ve.tasks.motion.visualization import draw_scene

    scene = straight(scenes[0])
    truth = scene.positions[scene.focal, scene.history_steps :]
    figure = Figure(figsize=(3, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    draw_scene(axes, scene, np.stack([truth] * 6), np.arange(6) / 15)  # all at one place
    FigureCanvasAgg(figure).draw()
    assert any(t.get_text().endswith(' m') for t in axes.texts)  # the scale bar
    boxes = [t.get_window_extent() for t in axes.texts if '%' in t.get_text()]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    points = axes.transData.transform(scene.to_local(truth))
    assert not any(box.contains(*point) for box in boxes for point in points)


# ---------------------------------------------------------------- simulator
def test_cities_join_up():
    lanes = build_city(3)
    for lane in lanes.values():
        assert lane.successors and lane.predecessors
        for j in lane.successors:
            np.testing.assert_allclose(lane.line[-1], lanes[j].line[0], atol=1e-6)
    assert {lane.turn for lane in lanes.values()} == {'NONE', 'LEFT', 'RIGHT'}
    assert max(len(lane.successors) for lane in lanes.values()) >= 3


@pytest.mark.parametrize(
    'speed, gap, closing, sign',
    [(5.0, None, 0.0, 1), (12.0, None, 0.0, 0), (12.0, 5.0, 5.0, -1), (0.0, 2.0, 0.0, 0)],
)
def test_the_driver_model_accelerates_follows_and_brakes(speed, gap, closing, sign):
    assert np.sign(round(idm(speed, 12.0, gap, closing), 6)) == sign


def test_traffic_keeps_to_lanes_and_repeats_by_seed():
    first, second = (windows('PIT', 5, 4, 50, 20) for _ in range(2))
    lines = np.concatenate([lane.line for lane in build_city(11, (1500.0, 200.0)).values()])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        seen = a.positions[a.valid]
        nearest = np.linalg.norm(seen[:, None] - lines, axis=-1).min(1)
        assert nearest.max() < 6.0  # half the distance of two points, and noise
        assert a.valid[a.focal, 10:].all() and a.valid[a.sensor].all()
    assert not all(w.valid.all() for w in first)
    other = windows('PIT', 6, 1, 50, 20)[0]
    assert (
        other.positions.shape != first[0].positions.shape
        or (other.positions != first[0].positions).any()
    )


@pytest.mark.parametrize('layout', ['argoverse1', 'argoverse2'])
def test_simulated_data_sets_are_made_once_and_not_mixed_up(layout, tmp_path):
    fields = dict(root=str(tmp_path / 'd'), counts=dict(train=3, val=2), layout=layout)
    first = TrafficDataset('val', **fields)
    time = (tmp_path / 'd/val.cache').stat().st_mtime_ns
    assert len(first) == len(TrafficDataset('val', **fields)) == 2
    assert (tmp_path / 'd/val.cache').stat().st_mtime_ns == time
    with pytest.raises(UserError, match='set another dataset.root'):
        TrafficDataset('val', **dict(fields, counts=dict(train=4, val=2)))
    with pytest.raises(UserError, match='split'):
        TrafficDataset('test', **fields)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.tex').touch()
    with pytest.raises(UserError, match='neither empty nor'):
        TrafficDataset('val', **dict(fields, root=str(tmp_path / 'mine')))


# -------------------------------------------------------------------- tools
@pytest.fixture
def tool(monkeypatch, capsys):
    """``tool(name, *args)`` runs a tool's main; returns what it printed."""

    def run(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        runpy.run_path(str(ROOT / 'tools/motion' / name), run_name='__main__')
        return capsys.readouterr().out

    return run


def test_tools_go_from_files_to_scores_regions_pictures_and_submissions(argoverse1, tmp_path, tool):
    for split in ('train', 'val', 'test'):
        out = tool(
            'preprocess.py',
            'argoverse1',
            argoverse1 / split / 'data',
            tmp_path / f'{split}.cache',
            '--map-dir',
            argoverse1 / 'map_files',
        )
        assert f'"count": {len(SceneCache(tmp_path / f"{split}.cache"))}' in out
    cfg = Config.fromfile(ROOT / 'configs/motion/vectornet_argoverse1.py')
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers = 0
        files = 'val' if split == 'test' else split
        loader.dataset.cache = str(tmp_path / f'{files}.cache')
    cfg.vis_backends = cfg.visualizer.vis_backends = []
    cfg.dump(tmp_path / 'config.py')
    tool('baselines.py', tmp_path / 'config.py', '--out', tmp_path / 'scores.json')
    scores = json.loads((tmp_path / 'scores.json').read_text())
    expected = np.mean(
        [
            forecast_metrics(*ConstantVelocity()(s), s.positions[s.focal, 20:])['minFDE']
            for s in SceneCache(tmp_path / 'val.cache')
        ]
    )
    assert scores['constant velocity']['motion/minFDE@6'] == pytest.approx(expected)
    assert set(scores) == {'constant velocity', 'Kalman filter', 'nearest neighbors'}
    with pytest.raises(SystemExit):
        tool('make_regions.py', tmp_path / 'val.cache', tmp_path / 'r.json')
    tool('make_regions.py', tmp_path / 'train.cache', tmp_path / 'r.json', '--regions', 2)
    assert len(json.loads((tmp_path / 'r.json').read_text())['hulls']) == 2
    tool('draw.py', tmp_path / 'config.py', tmp_path / 'grid.png', '--scenes', 2)
    assert (tmp_path / 'grid.png').stat().st_size > 5000

    import torch

    from lm4ve.registry import MODELS

    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    tool(
        'submit.py',
        tmp_path / 'config.py',
        tmp_path / 'model.pth',
        tmp_path / 'x.h5',
        '--cache',
        tmp_path / 'test.cache',
        '--work-dir',
        tmp_path / 'w',
    )
    with h5py.File(tmp_path / 'x.h5') as h:
        assert h['argoverse_forecasting'].shape == (
            len(SceneCache(tmp_path / 'test.cache')) * 6 * 30,
            4,
        )
