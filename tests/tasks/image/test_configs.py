"""Every image config trains, validates, saves and resumes."""

import pytest
from mmengine.registry import FUNCTIONS, MODELS

pytest.importorskip('mmpretrain')
from lm4ve.blocks import frozen_tensors  # noqa: E402
from lm4ve.runner.command_line import build_runner  # noqa: E402
from tests.helpers.config_runs import train_and_resume  # noqa: E402
from tests.helpers.tasks import configs_of  # noqa: E402

#: MMEngine's FSDP needs an accelerator to run.
FSDP = 'vit-b_llama_fsdp_in1k.py'
#: The robustness configs test what others train: `test_runs.py` runs them.
TRAINED = [c for c in configs_of('image') if c != FSDP and not c.startswith('robustness/')]


@pytest.mark.parametrize('name', TRAINED)
def test_config_trains_validates_saves_and_resumes(name, shrinker, tmp_path):
    train_and_resume(shrinker, name, tmp_path)


@pytest.mark.parametrize('name', [FSDP])
def test_fsdp_config_builds_its_runner_and_model(name, shrinker, tmp_path):
    cfg = shrinker.load(name, tmp_path)
    runner = build_runner(cfg)
    assert type(runner).__name__ == 'FlexibleRunner'
    assert type(runner.strategy).__name__ == 'FSDPStrategy'
    policy = cfg.strategy.model_wrapper.auto_wrap_policy.type
    assert callable(FUNCTIONS.get(policy))
    assert frozen_tensors(MODELS.build(cfg.model))
