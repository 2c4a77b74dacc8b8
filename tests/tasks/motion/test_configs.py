"""Every motion config builds, trains, validates, saves, resumes and tests."""

import pytest
import torch

from lm4ve.blocks import LLMBlock, count_parameters, frozen_tensors
from lm4ve.engine.command_line import build_runner
from tests.helpers.tasks import configs_of
from tests.tasks.motion.shrink import MotionShrinker


@pytest.fixture(scope='module')
def shrinker(tmp_path_factory, argoverse1, argoverse2):
    folder = tmp_path_factory.mktemp('stand-ins')
    return MotionShrinker(folder, argoverse1, argoverse2)


def frozen_of(model) -> dict:
    return {
        (i, k): v.clone()
        for i, m in enumerate(model.modules())
        if isinstance(m, LLMBlock)
        for k, v in frozen_tensors(m).items()
    }


@pytest.mark.parametrize('name', configs_of('motion'))
def test_config_trains_validates_saves_resumes_and_tests(name, shrinker, tmp_path):
    runner = build_runner(shrinker.load(name, tmp_path, epochs=1))
    assert ('llama_' in name or 'frozen' in name or 'minilm' in name) == bool(
        frozen_of(runner.model)
    )
    frozen = frozen_of(runner.model)
    before = {k: v.clone() for k, v in runner.model.named_parameters()}
    runner.train()
    assert runner.iter > 0
    after = dict(runner.model.named_parameters())
    assert all(torch.isfinite(v).all() for v in after.values())
    moved = [k for k, v in before.items() if not torch.equal(v, after[k])]
    assert any(k.startswith('encoder.') for k in moved)
    assert any(k.startswith('decoder.') for k in moved)
    if runner.model.neck is not None:
        assert 'neck.mapper_in.weight' in moved
    for key, value in frozen_of(runner.model).items():
        assert torch.equal(value, frozen[key]), key
    assert 'val/motion/minFDE@6' in runner.message_hub.log_scalars

    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    size = sum(
        v.numel() for k, v in saved.items() if 'llm_source' not in k and v.dtype.is_floating_point
    )
    assert size == count_parameters(runner.model)[0]

    cfg = shrinker.load(name, tmp_path, epochs=2)
    cfg.resume = True
    resumed = build_runner(cfg)
    resumed.train()
    assert resumed.epoch == 2

    cfg = shrinker.load(name, tmp_path)
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    tested = build_runner(cfg).test()
    assert tested['motion/scenes'] == len(resumed.val_dataloader.dataset)
    last = resumed.message_hub.get_scalar('val/motion/minFDE@6').current()
    assert tested['motion/minFDE@6'] == pytest.approx(last, abs=1e-5)
