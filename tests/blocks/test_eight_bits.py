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
    layer, x = EightBitLinear(linear, kind), torch.randn(2, 5, 32, requires_grad=True)
    weight = layer.codes.float() * layer.scale[:, None]
    assert relative(weight, linear.weight) < 0.03
    out = layer(x)
    out.sum().backward()
    assert relative(out, nn.functional.linear(x, weight, linear.bias)) < 0.04
    assert relative(x.grad, weight.sum(0).expand_as(x)) < 0.04


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('arch', ['llama', 'gpt2', 'bert'])
def test_block_is_close_to_full_precision(arch, kind):
    x, results = torch.randn(2, 7, 24), {}
    for dtype in ('float32', kind):
        torch.manual_seed(1)
        neck = LLMBlockNeck(24, dict(type='LLMBlock', arch=FAMILIES[arch], dtype=dtype))
        nn.init.normal_(neck.mapper_in.weight, std=0.5)
        results[dtype] = step(neck, x)
    for found, expected in zip(results[kind], results['float32'], strict=True):
        assert relative(found, expected) < 0.1


@pytest.mark.parametrize('kind', KINDS)
def test_casts_copies_and_devices_keep_the_codes(kind):
    block = LLMBlock(arch=FAMILIES['llama'], dtype=kind)
    layer = block.layers[0].o_proj.wrapped
    before = copy.deepcopy(layer.codes), layer.scale.clone()
    copied = copy.deepcopy(block).half().to('cpu')
    for each in (block, copied):
        found = each.layers[0].o_proj.wrapped
        assert torch.equal(found.codes.view(torch.uint8), before[0].view(torch.uint8))
        assert torch.equal(found.scale, before[1])
    assert copied.source['dtype'] == kind
    assert not [n for n in block.state_dict() if 'codes' in n]


def test_queries_keys_and_values_keep_16_bits():
    block = LLMBlock(arch=FAMILIES['llama'], dtype='int8')
    types = {
        n: type(m.wrapped) for n, m in block.layers[0].named_children() if 'proj' in n
    }
    kept = dict.fromkeys(('q_proj', 'k_proj', 'v_proj'), nn.Linear)
    assert types == dict(kept, o_proj=EightBitLinear)
