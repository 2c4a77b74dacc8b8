"""Files for the servers of Argoverse 1 and 2, and the tools that lead to them."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from mmengine.config import Config

from lm4ve.registry import MODELS
from lm4ve.tasks.motion import SceneCache
from lm4ve.tasks.motion.metrics import write_submission
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here


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
    assert list(pd.read_parquet(tmp_path / 'x.parquet')) == submission.SUBMISSION_COL_NAMES


@pytest.mark.parametrize(
    'name, form, scene_id',
    [('x.csv', 'argoverse1', '17'), ('x.parquet', 'argoverse2', '17'), ('x.h5', 'argoverse1', 'a')],
)
def test_forecasts_of_another_data_set_are_refused(name, form, scene_id, tmp_path):
    with pytest.raises(ValueError):
        write_submission(tmp_path / name, [forecast(30, scene_id)], form)
    assert not list(tmp_path.iterdir())


def tool(name, *args):
    run_tool_here(f'motion/{name}.py', *args)


@pytest.fixture(scope='module')
def folder(argoverse1, tmp_path_factory):
    """Caches, and a config that reads them."""
    root = tmp_path_factory.mktemp('tools')
    for split in ('val', 'test'):
        files = argoverse1 / split / 'data', root / f'{split}.cache'
        tool('preprocess', 'argoverse1', *files, '--map-dir', argoverse1 / 'map_files')
    cfg = Config.fromfile(ROOT / 'configs/motion/vectornet_argoverse1.py')
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers, loader.dataset.cache = 0, str(root / 'val.cache')
    cfg.vis_backends = cfg.visualizer.vis_backends = []
    cfg.dump(root / 'config.py')
    return root


def test_test_set_is_submitted(folder):
    state = MODELS.build(Config.fromfile(folder / 'config.py').model).state_dict()
    torch.save(dict(state_dict=state), folder / 'model.pth')
    out = folder / 'model.pth', folder / 'x.h5'
    places = '--cache', folder / 'test.cache', '--work-dir', folder / 'w'
    tool('submit', folder / 'config.py', *out, *places)
    with h5py.File(folder / 'x.h5') as h:
        assert len(h['argoverse_forecasting']) == len(SceneCache(folder / 'test.cache')) * 6 * 30
