"""Every image config builds, trains, validates, saves and resumes."""

import pytest
import torch
from mmengine.registry import FUNCTIONS, MODELS

from lm4ve.blocks import LLMBlock, count_parameters, frozen_tensors
from lm4ve.engine.command_line import build_runner
from tests.helpers.tasks import configs_of
from tests.tasks.image.shrink import Shrinker

pytest.importorskip('mmpretrain')


@pytest.fixture(scope='module')
def shrinker(tmp_path_factory):
    return Shrinker(tmp_path_factory.mktemp('stand-ins'))


def blocks_of(model) -> list:
    return [m for m in model.modules() if isinstance(m, LLMBlock)]


@pytest.mark.parametrize(
    'name', [c for c in configs_of('image') if 'fsdp' not in c and not c.startswith('robustness')]
)
def test_config_trains_validates_saves_and_resumes(name, shrinker, tmp_path):
    runner = build_runner(shrinker.load(name, tmp_path, epochs=1))
    source = {}
    for block in blocks_of(runner.model):
        source.update(frozen_tensors(block))
    source = {k: v.clone() for k, v in source.items()}
    runner.train()
    assert runner.iter > 0
    for block in blocks_of(runner.model):
        for key, value in frozen_tensors(block).items():
            assert torch.equal(value, source[key]), key
    assert any('accuracy' in k for k in runner.message_hub.log_scalars)

    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    saved = sum(
        v.numel()
        for k, v in checkpoint['state_dict'].items()
        if 'llm_source' not in k and v.dtype.is_floating_point
    )
    trainable, _ = count_parameters(runner.model)
    buffers = sum(b.numel() for b in runner.model.buffers())
    assert saved <= trainable + buffers

    cfg = shrinker.load(name, tmp_path, epochs=2)
    cfg.resume = True
    resumed = build_runner(cfg)
    resumed.train()
    assert resumed.epoch == 2
    assert (tmp_path / 'epoch_2.pth').is_file()


def test_fsdp_config_builds_its_runner_and_model(shrinker, tmp_path):
    """MMEngine's FSDP needs an accelerator to run; the config must build."""
    cfg = shrinker.load('vit-b_llama_fsdp_in1k.py', tmp_path)
    runner = build_runner(cfg)
    assert type(runner).__name__ == 'FlexibleRunner'
    assert type(runner.strategy).__name__ == 'FSDPStrategy'
    policy = cfg.strategy.model_wrapper.auto_wrap_policy.type
    assert callable(FUNCTIONS.get(policy))
    assert frozen_tensors(MODELS.build(cfg.model))
