"""Every video config builds, trains, tests on several views, saves and resumes."""

import pytest
import torch

pytest.importorskip('mmaction')
from lm4ve.blocks import LLMBlock, count_parameters, frozen_tensors  # noqa: E402
from lm4ve.engine.command_line import build_runner  # noqa: E402
from tests.helpers.tasks import configs_of  # noqa: E402
from tests.tasks.video.shrink import VideoShrinker  # noqa: E402


@pytest.fixture(scope='module')
def shrinker(tmp_path_factory):
    return VideoShrinker(tmp_path_factory.mktemp('stand-ins'))


def frozen_of(model) -> dict:
    blocks = [m for m in model.modules() if isinstance(m, LLMBlock)]
    return {
        f'{i}.{k}': v.clone()
        for i, block in enumerate(blocks)
        for k, v in frozen_tensors(block).items()
    }


@pytest.mark.parametrize('name', configs_of('video'))
def test_config_trains_tests_on_views_saves_and_resumes(name, shrinker, tmp_path):
    cfg = shrinker.load(name, tmp_path, epochs=1)
    runner = build_runner(cfg)
    frozen = frozen_of(runner.model)
    before = {k: v.clone() for k, v in runner.model.named_parameters()}
    reached = set()
    for key, value in runner.model.named_parameters():
        value.register_post_accumulate_grad_hook(lambda _, key=key: reached.add(key))
    runner.train()
    assert runner.iter > 1
    assert any('acc/top1' in k for k in runner.message_hub.log_scalars)
    for key, value in frozen_of(runner.model).items():
        assert torch.equal(value, frozen[key]), key
    # No parameter is left without a gradient: DDP would stop at the second step.
    assert reached == set(before)
    assert any(not torch.equal(v, before[k]) for k, v in runner.model.named_parameters())

    views = []
    runner.model.register_forward_pre_hook(
        lambda _, args, kwargs: views.append(kwargs['inputs'].shape[1]), with_kwargs=True
    )
    metrics = runner.test()
    assert 0 <= metrics['acc/top1'] <= 1
    expected = {'ssv2': 2 * 3, 'k400': 15, 'digits': 1}[name[:-3].split('_')[-1].split('-')[-1]]
    expected = {'tsn': 80, 'swin3d': 12}.get(name.split('-')[0], expected)
    assert set(views) == {expected}

    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    saved = sum(
        v.numel()
        for k, v in checkpoint['state_dict'].items()
        if 'llm_source' not in k and v.dtype.is_floating_point
    )
    trainable, _ = count_parameters(runner.model)
    assert saved <= trainable + sum(b.numel() for b in runner.model.buffers())

    cfg = shrinker.load(name, tmp_path, epochs=2)
    cfg.resume = True
    resumed = build_runner(cfg)
    resumed.train()
    assert resumed.epoch == 2 and (tmp_path / 'epoch_2.pth').is_file()
