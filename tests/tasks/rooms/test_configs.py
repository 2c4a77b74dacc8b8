"""Every config of SQA3D trains, validates, saves, resumes and tests."""

import pytest
from mmengine.config import Config

from lm4ve.runner.command_line import build_runner
from tests.helpers.config_runs import train_and_resume
from tests.helpers.tasks import FOLDERS, configs_of


@pytest.mark.parametrize('name', configs_of('rooms'))
def test_config_trains_validates_saves_resumes_and_tests(name, shrinker, tmp_path):
    train_and_resume(shrinker, name, tmp_path)
    cfg = shrinker.load(name, tmp_path)
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    build_runner(cfg).test()


@pytest.mark.parametrize('name', [c for c in configs_of('rooms') if '-demo' not in c])
def test_configs_have_the_sizes_of_paper_or_release(name):
    cfg = Config.fromfile(FOLDERS['rooms'] / name)
    model, released, hidden = cfg.model, 'released' in name, 'without-situation' in name
    wide, batch, epochs = (256, 16, 50) if released else (768, 32, 30)
    widths = {model.text_encoder.channels, model.fusion.embed_dims, model.pool.hidden_channels}
    assert widths == {model.head.hidden_channels} == {wide}
    assert (model.pose_head is None) == hidden
    assert model.data_preprocessor.get('use_situation', True) != hidden
    assert (model.neck is not None) == ('llama' in name or 'mlp' in name)
    assert model.neck is None or model.neck.in_channels == wide
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_cfg.max_epochs == epochs
    train, test = (cfg[f'{s}_dataloader'].dataset for s in ('train', 'test'))
    assert train.answers == model.head.answers and 'answers' not in test
    assert (train.split, test.split) == ('train', 'test') and 'AugmentScene' not in str(test)
