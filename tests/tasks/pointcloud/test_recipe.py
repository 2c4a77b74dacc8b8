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


def test_vectors_and_the_class_token_have_no_decay_and_the_full_rate():
    for name, (group, p) in groups_of(Config.fromfile(CONFIG)).items():
        mapper = 'mapper_' in name
        vector = p.ndim == 1 or name.endswith('cls_token')
        assert group['lr'] == PEAK * (0.5 if mapper else 1), name
        assert group['weight_decay'] == (0 if mapper or vector else 0.05), name


def test_the_release_s_groups_are_an_option(tmp_path):
    path = tmp_path / 'released.py'
    pieces = [str(CONFIG), str(CONFIGS / '_base_/pointcloud/released_rates.py')]
    path.write_text(
        f'_base_ = {pieces}\noptim_wrapper = dict(paramwise_cfg=_base_.released_rates)\n'
    )
    for name, (group, p) in groups_of(Config.fromfile(path)).items():
        # The rule of tools/builder.py, by names and shapes.
        if 'mapper_' in name:
            rate, decay = 0.5, 0.0
        elif p.ndim == 1 or name.endswith('.bias') or 'token' in name:
            rate, decay = 0.1, 0.0
        else:
            rate, decay = 1.0, 0.05
        assert group['lr'] == pytest.approx(PEAK * rate), name
        assert group['weight_decay'] == decay, name
