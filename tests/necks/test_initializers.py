"""How the mappers of a neck start: by its ``init_cfg``, in a runner's order and in a wrap."""

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

import lm4ve
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.initializers import TorchDefault
from tests.helpers.necks.initial_values import (
    TORCH_DEFAULT,
    TRUNCATED_NORMAL,
    assert_initial_values,
)

C, D = 48, 192
FORMULAS = {'truncated normal': TRUNCATED_NORMAL, 'torch': TORCH_DEFAULT}
VARIANTS = {
    'plain': {},
    'with bias': dict(mapper=dict(bias=True)),
    'two layers each': dict(mapper=dict(bias=True, depth=2)),
    'on the residual': dict(mapper=dict(bias=True, skip='ReLU'), residual='outer'),
}


class Host(BaseModule):
    """A model whose own initializer reaches the layers of its neck."""

    def __init__(self, neck: dict) -> None:
        super().__init__(init_cfg=dict(type='Constant', layer='Linear', val=7, bias=7))
        self.encoder = nn.Linear(C, C)
        self.neck = build_neck(**neck)


def build_neck(**fields) -> LLMBlockNeck:
    torch.manual_seed(0)
    block = dict(type='MLPBlock', embed_dims=D)
    return LLMBlockNeck(C, block, **fields)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('init_cfg', FORMULAS.values(), ids=FORMULAS)
def test_mappers_start_by_the_neck_s_field_within_a_model_of_another(init_cfg, variant):
    host = Host(dict(init_cfg=init_cfg, **VARIANTS[variant]))
    host.init_weights()
    assert host.encoder.weight.eq(7).all()
    assert_initial_values(host.neck, init_cfg)


def test_default_is_the_truncated_normal_distribution_of_the_released_vit():
    neck = build_neck(mapper=dict(bias=True))
    neck.init_weights()
    assert_initial_values(neck, TRUNCATED_NORMAL)


@pytest.mark.parametrize('init_cfg', FORMULAS.values(), ids=FORMULAS)
def test_wrap_initializes_the_mappers_by_the_same_field(init_cfg):
    model = nn.TransformerEncoderLayer(C, 2, 8)
    block = dict(type='MLPBlock', embed_dims=D)
    fields = dict(init_cfg=init_cfg, mapper=dict(bias=True))
    torch.manual_seed(0)
    lm4ve.wrap(model, after='linear2', block=block, **fields)
    assert_initial_values(model.llm_neck, init_cfg)


@pytest.mark.parametrize('init_cfg', FORMULAS.values(), ids=FORMULAS)
def test_frozen_mappers_below_adapters_start_by_the_field_too(init_cfg):
    pytest.importorskip('peft')
    fields = dict(mapper=dict(bias=True), lora=dict(r=4, alpha=1, bias='lora_only'))
    neck = build_neck(init_cfg=init_cfg, **fields)
    neck.init_weights()
    assert_initial_values(neck, init_cfg)
    x = torch.randn(2, 3, C)
    expected = neck.mapper_in.get_base_layer()(x)
    torch.testing.assert_close(neck.mapper_in(x), expected)


def test_log_says_who_initialized_the_mappers(capfd):
    build_neck(init_cfg=TORCH_DEFAULT).init_weights()
    log = ''.join(capfd.readouterr())
    assert log.count('TorchDefault: reset_parameters of torch') == 2


def test_a_class_that_torch_lacks_is_refused():
    with pytest.raises(UserError, match="init_cfg.layer='Linaer'"):
        TorchDefault(layer='Linaer')
