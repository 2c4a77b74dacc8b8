"""Every medical config trains, validates, saves, resumes and tests."""

import pytest

from tests.helpers.config_runs import train_and_resume
from tests.helpers.tasks import configs_of

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise


@pytest.mark.parametrize('name', configs_of('medical'))
def test_config_trains_validates_saves_resumes_and_tests(name, shrinker, tmp_path):
    runner = train_and_resume(shrinker, name, tmp_path)
    assert 0 <= runner.test()[shrinker.metric] <= 100
    # Only a released recipe selects an epoch, by the validation set.
    selects = 'save_best' in runner.cfg.default_hooks.checkpoint
    assert selects == ('-released' in name)
