"""The fine-tuning recipe: rates and decays of Point-BERT."""

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from tests.helpers.tasks import CONFIGS

CONFIG = CONFIGS / 'pointcloud/pointbert_mlp_scanobjectnn-hardest.py'
PEAK = 5e-4


def groups_of(cfg: Config) -> dict:
    """Return the learning rate and decay of each parameter of a config's model."""
    cfg.model.checkpoint = None
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    found = {id(g['params'][0]): g for g in wrapper.optimizer.param_groups}
    return {
        n: (found[id(p)], p) for n, p in model.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize('released', [False, True])
def test_rates_and_decays_are_those_of_the_guide(released, tmp_path):
    """The release's are by the rule of tools/builder.py, by names and shapes."""
    path = tmp_path / 'recipe.py'
    pieces = [str(CONFIG), str(CONFIGS / '_base_/pointcloud/released_rates.py')]
    text = (
        'optim_wrapper = dict(paramwise_cfg=_base_.released_rates)\n'
        if released
        else ''
    )
    path.write_text(f'_base_ = {pieces}\n{text}')
    for name, (group, p) in groups_of(Config.fromfile(path)).items():
        vector = p.ndim == 1 or name.endswith('.bias') or 'token' in name
        rate, decay = (0.1 if released else 1.0, 0.0) if vector else (1.0, 0.05)
        if 'mapper_' in name:
            rate, decay = 0.5, 0.0
        assert group['lr'] == pytest.approx(PEAK * rate), name
        assert group['weight_decay'] == decay, name
