"""Every config of SQA3D trains, validates, saves, resumes and tests."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS
from torch import nn

from tests.helpers.config_runs import metrics_of_saved, train_and_resume
from tests.helpers.tasks import FOLDERS, configs_of

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise
#: 26,623 questions in batches of 16.
STEPS_OF_EPOCH = 1664


@pytest.mark.parametrize('name', configs_of('rooms'))
def test_config_trains_validates_saves_resumes_and_tests(name, shrinker, tmp_path):
    train_and_resume(shrinker, name, tmp_path)
    metrics_of_saved(shrinker, name, tmp_path)


@pytest.mark.parametrize('name', [c for c in configs_of('rooms') if '-demo' not in c])
def test_configs_train_and_test_on_their_splits(name):
    cfg = Config.fromfile(FOLDERS['rooms'] / name)
    hidden = 'without-situation' in name
    assert (cfg.model.pose_head is None) == hidden
    assert cfg.model.data_preprocessor.get('use_situation', True) != hidden
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size
    train, test = (cfg[f'{s}_dataloader'].dataset for s in ('train', 'test'))
    assert train.answers == cfg.model.head.answers and 'answers' not in test
    assert (train.split, test.split) == ('train', 'test') and 'AugmentScene' not in str(
        test
    )


def released_momentum(epoch: int) -> float:
    """By ``lib/solver.py``, line 185, and ``pytorch_utils.py``, line 288: an epoch late."""
    return max(0.5 * 0.5 ** int(max(epoch - 1, 0) / 20), 0.001)


def test_batch_norms_have_the_released_momentum_in_every_epoch():
    cfg = Config.fromfile(FOLDERS['rooms'] / 'sqa3d_released-recipe.py')
    hook = HOOKS.build(cfg.custom_hooks[0])
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm2d(2)))
    for step in range(0, cfg.train_cfg.max_iters, 16):
        hook.before_train_iter(SimpleNamespace(iter=step, model=model), 0)
        expected = released_momentum(step // STEPS_OF_EPOCH)
        assert {model[0].momentum, model[1][0].momentum} == {expected}, step
