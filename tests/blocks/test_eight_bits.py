"""Products in 8 bits against the same block in fp32, outliers included."""

import copy

import pytest
import torch
from torch import nn

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.eight_bits import EightBitLinear
from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES

KINDS = ('int8', 'float8')


def step(neck, x):
    """Return output and input gradient of a step."""
    x = x.clone().requires_grad_()
    out = neck(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return out.detach(), x.grad


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bias', [True, False])
def test_product_equals_that_of_its_codes(kind, bias):
    linear = nn.Linear(32, 48, bias=bias)
    layer = EightBitLinear(linear, kind)
    x = torch.randn(2, 5, 32, requires_grad=True)
    weight = layer.codes.float() * layer.scale[:, None]
    assert relative(weight, linear.weight) < 0.03
    out = layer(x)
    out.sum().backward()
    assert relative(out, nn.functional.linear(x, weight, linear.bias)) < 0.04
    assert relative(x.grad, weight.sum(0).expand_as(x)) < 0.04


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('arch', ['llama', 'gpt2', 'bert'])
def test_block_is_close_to_full_precision(arch, kind):
    x = torch.randn(2, 7, 24)
    out, gradient = step(neck_of(arch, kind), x)
    expected, expected_gradient = step(neck_of(arch, 'float32'), x)
    assert relative(out, expected) < 0.1
    assert relative(gradient, expected_gradient) < 0.1


def neck_of(arch: str, dtype: str) -> LLMBlockNeck:
    torch.manual_seed(1)
    block = dict(type='LLMBlock', arch=FAMILIES[arch], dtype=dtype)
    neck = LLMBlockNeck(24, block)
    nn.init.normal_(neck.mapper_in.weight, std=0.5)
    return neck


@pytest.mark.parametrize('kind', KINDS)
def test_casts_copies_and_devices_keep_the_codes(kind):
    block = LLMBlock(arch=FAMILIES['llama'], dtype=kind)
    layer = block.layers[0].o_proj.wrapped
    codes = copy.deepcopy(layer.codes).view(torch.uint8)
    scale = layer.scale.clone()
    copied = copy.deepcopy(block).half().to('cpu')
    for each in (block, copied):
        found = each.layers[0].o_proj.wrapped
        assert torch.equal(found.codes.view(torch.uint8), codes)
        assert torch.equal(found.scale, scale)
    assert copied.source['dtype'] == kind
    assert not [n for n in block.state_dict() if 'codes' in n]


def test_queries_keys_and_values_keep_16_bits():
    block = LLMBlock(arch=FAMILIES['llama'], dtype='int8')
    layer = block.layers[0]
    for name in ('q_proj', 'k_proj', 'v_proj'):
        assert type(layer.get_submodule(name).wrapped) is nn.Linear
    assert type(layer.o_proj.wrapped) is EightBitLinear
