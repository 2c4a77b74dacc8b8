"""Every motion config trains, validates, saves, resumes and tests."""

import pytest

from lm4ve.runner.command_line import build_runner
from tests.helpers.config_runs import train_and_resume
from tests.helpers.tasks import configs_of


@pytest.mark.parametrize('name', configs_of('motion'))
def test_config_trains_validates_saves_resumes_and_tests(name, shrinker, tmp_path):
    resumed = train_and_resume(shrinker, name, tmp_path)
    cfg = shrinker.load(name, tmp_path)
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    tested = build_runner(cfg).test()
    assert tested['motion/scenes'] == len(resumed.val_dataloader.dataset)
    last = resumed.message_hub.get_scalar('val/motion/minFDE@6').current()
    assert tested['motion/minFDE@6'] == pytest.approx(last, abs=1e-5)
