"""Metrics against a plain computation and ``av2``; files for the servers, and their tools."""

import ast
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config

import lm4ve
from lm4ve.analysis import analyse
from lm4ve.analysis.samples import samples_of
from lm4ve.analysis.sheets import draw_sheet
from lm4ve.analysis.visualizer_hook import ActivationVisHook
from lm4ve.errors import UserError
from lm4ve.registry import MODELS
from lm4ve.tasks import motion
from lm4ve.tasks.base.building import collate, each_sample
from lm4ve.tasks.base.inference import FileInferencer
from lm4ve.tasks.base.inputs import find_inputs
from lm4ve.tasks.motion import MotionMetric, SceneCache, forecast_metrics
from lm4ve.tasks.motion.metrics import CONVENTIONS, write_submission
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_tool_here

TRUTH = np.array([[1.0, 0.0], [2.0, 0.0]])


@pytest.mark.parametrize('convention', ['argoverse1', 'argoverse2'])
def test_equals_a_plain_computation(convention):
    """On small whole numbers, of which many errors and probabilities are equal."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        count, k = rng.integers(1, 6, 2)
        truth, lines = rng.integers(4, size=(3, 2)), rng.integers(4, size=(count, 3, 2))
        p, valid = (
            rng.integers(4, size=count) / 4,
            rng.permutation([True, *(rng.random(2) < 0.5)]),
        )
        kept = sorted(range(count), key=lambda i: -p[i])[:k]
        errors = [
            [math.dist(lines[i][t], truth[t]) for t in np.flatnonzero(valid)]
            for i in kept
        ]
        # Of equal ends that of the more probable one.
        best = min(range(len(kept)), key=lambda j: errors[j][-1])
        ade, chance, total = min(map(np.mean, errors)), p[kept[best]], p[kept].sum()
        if convention == 'argoverse1':  # normalized over those that are kept
            ade, chance = (
                np.mean(errors[best]),
                chance / total if total else 1 / len(kept),
            )
        fde = errors[best][-1]
        found = forecast_metrics(lines, p, truth, valid, k, convention=convention)
        assert list(found) == ['minADE', 'minFDE', 'MR', 'brier-minFDE']
        expected = [ade, fde, fde > 2.0, fde + (1 - chance) ** 2]
        np.testing.assert_allclose(list(found.values()), expected, atol=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_equals_av2_on_random_input(seed):
    av2 = pytest.importorskip('av2.datasets.motion_forecasting.eval.metrics')
    rng = np.random.default_rng(seed)
    predictions, truth = rng.normal(0, 2, (6, 60, 2)), rng.normal(0, 2, (60, 2))
    p = rng.dirichlet(np.ones(6))
    found = forecast_metrics(predictions, p, truth, k=6, convention='argoverse2')
    fde = av2.compute_fde(predictions, truth)
    assert found['minADE'] == pytest.approx(av2.compute_ade(predictions, truth).min())
    assert found['minFDE'] == pytest.approx(fde.min())
    assert found['MR'] == av2.compute_is_missed_prediction(predictions, truth).all()
    brier = av2.compute_brier_fde(predictions, truth, p)
    assert found['brier-minFDE'] == pytest.approx(brier[fde.argmin()])


INVALID_FORECASTS = [
    dict(k=0),
    dict(probabilities=np.ones(3) / 3),
    dict(probabilities=np.array([1.5, 0.0])),
    dict(predictions=np.full((2, 2, 2), np.nan)),
    dict(valid=np.zeros(2, dtype=bool)),
]


@pytest.mark.parametrize('change', INVALID_FORECASTS)
def test_invalid_forecasts_are_refused(change):
    fields = dict(
        predictions=np.zeros((2, 2, 2)), truth=TRUTH, probabilities=np.array([0.5, 0.5])
    )
    with pytest.raises((ValueError, IndexError)):
        forecast_metrics(**{**fields, **change}, convention='argoverse1')


def sample(scene, shift):
    return dict(
        scene=scene,
        trajectories=(scene.future[0] + shift)[None],
        probabilities=np.ones(1),
    )


def test_metric_is_mean_over_scenes_with_a_future(scenes):
    hidden = scenes[0].valid.copy()
    hidden[:, scenes[0].history_steps :] = False
    blind = dataclasses.replace(scenes[0], valid=hidden)
    metric = MotionMetric('argoverse1', k=(1, 6))
    shifts = zip(
        (blind, *scenes[:2]), ([0.0, 0.0], [1.0, 0.0], [0.0, 4.0]), strict=True
    )
    metric.process(None, [sample(scene, shift) for scene, shift in shifts])
    found = metric.evaluate(3)
    for k in (1, 6):
        errors = [found[f'motion/{name}@{k}'] for name in ('minADE', 'minFDE')]
        assert errors == pytest.approx([2.5, 2.5])
        assert found[f'motion/MR@{k}'] == 0.5
    assert found['motion/scenes'] == 2
    metric.process(None, [sample(blind, 0.0)])
    with pytest.raises(UserError, match='No scene has a known future'):
        metric.evaluate(1)


def random_forecasts(scenes, count):
    """Return predictions of a model for scenes in turn, as its ``test_step`` does."""
    rng = np.random.default_rng(0)
    predictions = []
    for i in range(count):
        scene = scenes[i % len(scenes)]
        future, _ = scene.future
        lines = future + rng.normal(0, 3, (6, *future.shape)).cumsum(axis=1)
        p = rng.dirichlet(np.ones(6))
        predictions.append(dict(scene=scene, trajectories=lines, probabilities=p))
    return predictions


@pytest.mark.parametrize('convention', CONVENTIONS)
@pytest.mark.parametrize('form', ['dict', 'list', 'metrics'])
def test_a_picture_has_the_numbers_of_the_configs_metric(scenes, convention, form):
    settings = dict(type='lm4ve.MotionMetric', convention=convention, k=(1, 6))
    forms = dict(
        dict=settings,
        list=[settings],
        metrics=dict(metrics=[settings]),
    )
    metric = MotionMetric(convention, k=(1, 6))
    for prediction in random_forecasts(scenes, 40):
        metric.process(None, [prediction])
        found = metric.evaluate(1)
        ade = found['motion/minADE@6']
        fde = found['motion/minFDE@6']
        expected = f'minADE@6 {ade:.2f} m, minFDE@6 {fde:.2f} m'
        facts = motion.TASK.protocol.describe(prediction, None, forms[form])
        assert facts['against the truth'] == expected


def test_a_picture_without_a_metric_or_a_future_has_no_numbers(scenes):
    (prediction,) = random_forecasts(scenes, 1)
    describe = motion.TASK.protocol.describe
    dump = [dict(type='DumpResults', out_file_path='a.pkl')]
    assert list(describe(prediction, None, None)) == ['prediction']
    assert list(describe(prediction, None, dump)) == ['prediction']
    hidden = scenes[0].valid.copy()
    hidden[:, scenes[0].history_steps :] = False
    blind = dict(prediction, scene=dataclasses.replace(scenes[0], valid=hidden))
    settings = dict(type='lm4ve.MotionMetric', convention='argoverse2')
    assert list(describe(blind, None, settings)) == ['prediction']
    assert describe(dict(scene=scenes[0]), None, settings) == {}


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_all_pictures_of_a_file_are_scored_by_the_config(
    convention, argoverse1, tmp_path, monkeypatch
):
    """Inference, sheets and the hook write the metric's numbers; the weights are random."""
    cfg = Config.fromfile(CONFIGS / 'motion/vectornet_argoverse1.py')
    # In the validation's pictures that of its own evaluator counts.
    cfg.val_evaluator.convention = 'argoverse1'
    cfg.test_evaluator = dict(type='lm4ve.MotionMetric', convention=convention)
    inferencer = FileInferencer(cfg, device='cpu')
    file = argoverse1 / 'train/data/1.csv'
    (sample,) = each_sample(cfg, find_inputs(file, motion.TASK))
    batch = collate(cfg, [sample.data])
    metric = MotionMetric(convention)
    predictions = inferencer.model.test_step(batch)
    metric.process(None, predictions)
    found = metric.evaluate(1)
    expected = f'minADE@6 {found["motion/minADE@6"]:.2f} m'

    texts = []
    suptitle = Figure.suptitle

    def noted(self, text, **style):
        texts.append(text)
        return suptitle(self, text, **style)

    monkeypatch.setattr(Figure, 'suptitle', noted)
    inferencer(file, out_dir=tmp_path / 'pictures')
    (drawn,) = samples_of(
        analyse(inferencer.model, batch), inferencer.model, ['a'], cfg.test_evaluator
    )
    draw_sheet(drawn)
    visualizer = SimpleNamespace(dataset_meta=None, add_image=lambda *_, **__: None)
    runner = SimpleNamespace(
        model=inferencer.model,
        cfg=cfg,
        visualizer=visualizer,
        iter=0,
        experiment_name='a',
    )
    hook = ActivationVisHook(enable=True)
    hook.after_test_iter(runner, 0, batch, predictions)
    assert len(texts) == 3
    for text in texts:
        assert expected in ' '.join(text.split())


def test_no_convention_is_a_default():
    """A function without a convention would score some data set by another's."""
    package = Path(lm4ve.__file__).parent
    with_default = []
    for path in package.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.FunctionDef):
                signature = node.args
                positional = signature.posonlyargs + signature.args
                optional = positional[len(positional) - len(signature.defaults) :]
                for argument, default in zip(
                    signature.kwonlyargs, signature.kw_defaults, strict=True
                ):
                    if default is not None:
                        optional.append(argument)
                if 'convention' in [argument.arg for argument in optional]:
                    with_default.append(f'{path.name}: {node.name}')
    assert not with_default


def forecast(steps, scene_id='17'):
    lines = np.random.default_rng(0).normal(0, 1, (3, steps, 2))
    p = np.array([0.2, 0.5, 0.1])
    return dict(scene_id=scene_id, track_id='a', trajectories=lines, probabilities=p)


def test_argoverse1_rows_are_sorted_and_normalized(tmp_path):
    f = forecast(30)
    write_submission(tmp_path / 'x.h5', [f, dict(f, scene_id='4')], 'argoverse1')
    with h5py.File(tmp_path / 'x.h5') as h:
        assert list(h) == ['argoverse_forecasting']
        rows = h['argoverse_forecasting'][:]
    assert rows.shape == (2 * 3 * 30, 4)
    assert rows[:90, 0].tolist() == [17] * 90 and rows[90, 0] == 4
    np.testing.assert_allclose(rows[:30, 1:3], f['trajectories'][1], atol=1e-6)
    np.testing.assert_allclose(rows[[0, 30, 60], 3], [0.625, 0.25, 0.125])


def test_av2_reads_argoverse2_submission(tmp_path):
    submission = pytest.importorskip('av2.datasets.motion_forecasting.eval.submission')
    f = forecast(60, 'abc')
    write_submission(tmp_path / 'x.parquet', [f], 'argoverse2')
    found = submission.ChallengeSubmission.from_parquet(tmp_path / 'x.parquet')
    p, tracks = found.predictions['abc']
    np.testing.assert_allclose(p, [0.625, 0.25, 0.125])
    np.testing.assert_allclose(tracks['a'], f['trajectories'][[1, 0, 2]])
    assert (
        list(pd.read_parquet(tmp_path / 'x.parquet')) == submission.SUBMISSION_COL_NAMES
    )


@pytest.mark.parametrize(
    'name, form, scene_id',
    [
        ('x.csv', 'argoverse1', '17'),
        ('x.parquet', 'argoverse2', '17'),
        ('x.h5', 'argoverse1', 'a'),
    ],
)
def test_forecasts_of_another_data_set_are_refused(name, form, scene_id, tmp_path):
    with pytest.raises(ValueError):
        write_submission(tmp_path / name, [forecast(30, scene_id)], form)
    assert not list(tmp_path.iterdir())


def test_test_set_is_submitted(argoverse1, tmp_path):
    config = CONFIGS / 'motion/vectornet_argoverse1.py'
    model, out = tmp_path / 'model.pth', tmp_path / 'x.h5'
    data, cache = argoverse1 / 'test/data', tmp_path / 'test.cache'
    maps = '--map-dir', argoverse1 / 'map_files'
    run_tool_here('motion/preprocess.py', 'argoverse1', data, cache, *maps)
    state = MODELS.build(Config.fromfile(config).model).state_dict()
    torch.save(dict(state_dict=state), model)
    options = '--cfg-options', 'test_dataloader.num_workers=0'
    places = '--cache', cache, '--work-dir', tmp_path, *options
    run_tool_here('motion/submit.py', config, model, out, *places)
    with h5py.File(out) as h:
        assert len(h['argoverse_forecasting']) == len(SceneCache(cache)) * 6 * 30
