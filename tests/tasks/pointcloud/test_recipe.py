"""The fine-tuning recipe: rates and decays of Point-BERT."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner

from tests.helpers.tasks import CONFIGS

CONFIG = CONFIGS / 'pointcloud/pointbert_mlp_scanobjectnn-hardest.py'
PEAK, LEAST, STEPS = 5e-4, 1e-6, 3


def groups_of(cfg: Config) -> dict:
    """Return the learning rate and decay of each parameter of a config's model."""
    cfg.model.checkpoint = None
    model = MODELS.build(cfg.model)
    build = Runner.build_optim_wrapper
    wrapper = build(type('Host', (), dict(model=model))(), cfg.optim_wrapper)
    found = {id(g['params'][0]): g for g in wrapper.optimizer.param_groups}
    return {n: (found[id(p)], p) for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('epoch', [0, 10, 100])
def test_rate_warms_up_by_steps_then_falls(epoch):
    """Stepped as MMEngine's hook does: the warm-up by steps, the cosine by epochs."""
    cfg = Config.fromfile(CONFIG)
    lr = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    built = [
        PARAM_SCHEDULERS.build(dict(s), default_args=dict(optimizer=optimizer, epoch_length=STEPS))
        for s in cfg.param_scheduler
    ]
    for _ in range(epoch):
        for _ in range(STEPS):
            optimizer.step()
            built[0].step()
        built[1].step()
    if epoch < 10:
        formula = LEAST + (PEAK - LEAST) * epoch / 10
    else:
        formula = LEAST + (PEAK - LEAST) * (1 + math.cos(math.pi * (epoch - 10) / 290)) / 2
    assert optimizer.param_groups[0]['lr'] == pytest.approx(formula, rel=1e-6)


@pytest.mark.parametrize('released', [False, True])
def test_rates_and_decays_are_those_of_the_guide(released, tmp_path):
    """The release's are by the rule of tools/builder.py, by names and shapes."""
    path = tmp_path / 'recipe.py'
    pieces = [str(CONFIG), str(CONFIGS / '_base_/pointcloud/released_rates.py')]
    text = 'optim_wrapper = dict(paramwise_cfg=_base_.released_rates)\n' if released else ''
    path.write_text(f'_base_ = {pieces}\n{text}')
    for name, (group, p) in groups_of(Config.fromfile(path)).items():
        vector = p.ndim == 1 or name.endswith('.bias') or 'token' in name
        rate, decay = (0.1 if released else 1.0, 0.0) if vector else (1.0, 0.05)
        if 'mapper_' in name:
            rate, decay = 0.5, 0.0
        assert group['lr'] == pytest.approx(PEAK * rate), name
        assert group['weight_decay'] == decay, name
