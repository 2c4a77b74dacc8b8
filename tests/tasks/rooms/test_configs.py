"""Every config of SQA3D trains, validates, saves, resumes and tests."""

import pytest
from mmengine.config import Config

from tests.helpers.config_runs import metrics_of_saved, train_and_resume
from tests.helpers.tasks import FOLDERS, configs_of

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise


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
