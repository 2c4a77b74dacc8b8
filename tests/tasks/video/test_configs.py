"""Every video config trains, validates, saves, resumes and tests on several views."""

import pytest

pytest.importorskip('mmaction')
from tests.helpers.config_runs import train_and_resume  # noqa: E402
from tests.helpers.tasks import configs_of  # noqa: E402

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise


@pytest.mark.parametrize('name', configs_of('video'))
def test_config_trains_validates_saves_resumes_and_tests_on_views(
    name, shrinker, tmp_path
):
    runner = train_and_resume(shrinker, name, tmp_path)
    views = set()
    runner.model.register_forward_pre_hook(
        lambda _, args, kwargs: views.add(kwargs['inputs'].shape[1]), with_kwargs=True
    )
    assert 0 <= runner.test()['acc/top1'] <= 1
    expected = {'ssv2': 2 * 3, 'k400': 15, 'digits': 1}[
        name[:-3].split('_')[-1].split('-')[-1]
    ]
    expected = {'tsn': 80, 'swin3d': 12}.get(name.split('-')[0], expected)
    assert views == {expected}
