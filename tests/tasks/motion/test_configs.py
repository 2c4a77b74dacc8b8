"""Every motion config trains, validates, saves, resumes and tests."""

import pytest

from tests.helpers.config_runs import metrics_of_saved, train_and_resume
from tests.helpers.tasks import configs_of

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise


@pytest.mark.parametrize('name', configs_of('motion'))
def test_config_trains_validates_saves_resumes_and_tests(name, shrinker, tmp_path):
    resumed = train_and_resume(shrinker, name, tmp_path)
    tested = metrics_of_saved(shrinker, name, tmp_path)
    assert tested['motion/scenes'] == len(resumed.val_dataloader.dataset)
    last = resumed.message_hub.get_scalar('val/motion/minFDE@6').current()
    assert tested['motion/minFDE@6'] == pytest.approx(last, abs=1e-5)
