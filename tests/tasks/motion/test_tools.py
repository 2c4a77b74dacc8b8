"""The tools lead from files to a submission."""

import h5py
import pytest
import torch
from mmengine.config import Config

from lm4ve.registry import MODELS
from lm4ve.tasks.motion import SceneCache
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here


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
