"""Every point-cloud config trains, validates, saves, resumes, tests and votes."""

import pytest
from mmengine.config import ConfigDict

from lm4ve.runner.command_line import build_runner
from tests.helpers.config_runs import train_and_resume
from tests.helpers.tasks import configs_of

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise


@pytest.mark.parametrize('name', configs_of('pointcloud'))
def test_config_trains_validates_saves_resumes_and_votes(name, shrinker, tmp_path):
    train_and_resume(shrinker, name, tmp_path)
    # As `tools/test.py --tta` does it.
    cfg = shrinker.load(name, tmp_path)
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    assert 0 <= build_runner(cfg).test()['accuracy/overall'] <= 100
    # No checkpoint is chosen by its test score.
    assert 'save_best' not in cfg.default_hooks.checkpoint
    assert cfg.test_evaluator == dict(type='lm4ve.PointCloudAccuracy')
