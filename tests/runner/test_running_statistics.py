"""Several processes validate with the running statistics that their checkpoint has."""

import pytest

from lm4ve.runner.runner import build_runner
from tests.helpers.processes import outputs_of_two
from tests.helpers.runner.statistics_in_processes import config


@pytest.mark.parametrize(
    ('loop', 'hooks'),
    [
        ('epochs', []),
        ('iterations', []),
        ('epochs', ['EMAHook']),
        # A vocabulary's fingerprint is no statistic, of which MMEngine's hook takes means.
        ('epochs', ['SyncBuffersHook']),
    ],
)
def test_a_validation_has_the_score_of_its_checkpoint(tmp_path, loop, hooks):
    script = 'statistics_in_processes.py'
    printed = outputs_of_two(script, tmp_path, loop, *hooks)
    name = 'epoch_2.pth' if loop == 'epochs' else 'iter_4.pth'
    checkpoint = str(tmp_path / 'work' / name)
    cfg = config(tmp_path / 'test', loop, load_from=checkpoint)
    score = build_runner(cfg).test()['mean']
    for output in printed:
        # The samples are means of fp32, added up in another order.
        assert float(output.split()[-1]) == pytest.approx(score, rel=1e-5)
