"""Every image config trains, validates, saves and resumes."""

import pytest
import torch
from mmengine.registry import FUNCTIONS, MODELS

pytest.importorskip('mmpretrain')
from lm4ve.blocks import frozen_tensors  # noqa: E402
from lm4ve.blocks.record_text import KEY, decode_record  # noqa: E402
from lm4ve.runner.command_line import build_runner  # noqa: E402
from tests.helpers.config_runs import train_and_resume  # noqa: E402
from tests.helpers.tasks import configs_of  # noqa: E402

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise

#: MMEngine's FSDP needs an accelerator to run.
FSDP = 'vit-b_llama_fsdp_in1k.py'
#: The robustness configs test what others train: `test_imagenet_variants.py` does.
STAGES = 'mae-vit-b_llama-lora_in1k.py', 'vit-b_llama-lora_in1k.py'
TRAINED = {*configs_of('image')} - {FSDP, *STAGES}
TRAINED = sorted(c for c in TRAINED if not c.startswith('robustness/'))


def without_dtype(record: torch.Tensor) -> dict:
    """Return a record but for the dtype of a block.

    That of the second stage is 'auto' and follows the first stage's; the tests pin it.
    """
    fields = decode_record(record, 'the record')
    fields.pop('dtype', None)
    return fields


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


@pytest.mark.parametrize('name', STAGES)
def test_stages_train_and_the_second_starts_from_the_first(name, shrinker, tmp_path):
    runner = build_runner(shrinker.load(name, tmp_path))
    for path in shrinker.weights:
        # What the first stage's training saved.
        state = torch.load(path, weights_only=True)['state_dict']
        begin = 'backbone.'
        trained = {k[len(begin) :]: v for k, v in state.items() if k.startswith(begin)}
        runner.model.init_weights()
        started = runner.model.backbone.state_dict()
        # All but the last norm, whose place differs.
        assert {k[:3] for k in trained.keys() ^ started.keys()} == {'ln1', 'ln2'}
        for key in trained.keys() & started.keys():
            if key.endswith(KEY):
                assert without_dtype(trained[key]) == without_dtype(started[key])
            else:
                assert torch.equal(trained[key], started[key]), key
    assert bool(shrinker.weights) == (name == STAGES[1])
    runner.train()
    assert runner.iter > 0
