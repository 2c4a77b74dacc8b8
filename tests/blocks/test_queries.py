"""Which tokens are computed, of which layers, in which type."""

import pytest
import torch

from lm4ve.blocks import LLMBlock, MLPBlock
from tests.blocks.test_families import right_padding, tokens


def test_only_the_queried_tokens_pass_the_last_layer(checkpoints):
    block = LLMBlock(checkpoints('llama'), layers=(0, 1))
    sizes = []
    for layer in block.layers:
        for part in (layer.q_proj, layer.mlp):
            part.register_forward_hook(lambda module, args, out: sizes.append(out.shape[1]))
    block(tokens(), queries=slice(0, 1))
    assert sizes == [6, 6, 1, 1]


def test_layers_run_in_the_given_order(checkpoints):
    path, x = checkpoints('llama'), tokens()
    first, second = (LLMBlock(path, layers=(i,), final_norm=False) for i in (0, 1))
    for layers, expected in (
        *(((0, 1), second(first(x))), ((1, 0), first(second(x)))),
        *(((-2, -1), second(first(x))), ((-1,), second(x))),
    ):
        block = LLMBlock(path, layers=layers, final_norm=False)
        assert torch.equal(block(x), expected)
        assert block.source['layers'] == [i % 2 for i in layers]


@pytest.mark.parametrize('variant', ['llama', 'gemma2', 'gpt2', 'bert'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_16_bit_blocks_are_close_and_keep_the_input_type(checkpoints, variant, dtype):
    options = dict(rotary=variant in ('llama', 'gemma2'))
    block = LLMBlock(checkpoints(variant), dtype=dtype, **options)
    x, padding = tokens(), right_padding()
    out, full = block(x, padding), LLMBlock(checkpoints(variant), **options)(x, padding)
    assert (out - full)[~padding].abs().max() / full.abs().max() < 3e-2
    for other in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert block(x.to(other)).dtype == other


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_autocast_does_not_reach_into_the_block(checkpoints, dtype):
    block = LLMBlock(checkpoints('llama'), dtype=dtype)
    types = set()
    for name, module in block.named_modules():
        if name.endswith('_proj'):
            module.register_forward_hook(lambda module, args, out: types.add(out.dtype))
    with torch.autocast('cpu', torch.bfloat16):
        inside = block(tokens())
    assert types == {getattr(torch, dtype)}
    assert torch.equal(inside, block(tokens()))


def test_rotary_tables_stay_fp32_in_a_cast_block(checkpoints):
    block = LLMBlock(checkpoints('llama'), rotary=True)
    # Weights like these survive bf16, positions beyond 256 would not.
    block.to(torch.bfloat16).to(torch.float32)
    x = torch.randn(1, 400, 32)
    assert torch.equal(block(x), LLMBlock(checkpoints('llama'), rotary=True)(x))


def test_the_mlp_control_has_the_interface_of_a_block():
    control = MLPBlock(32)
    x = tokens()
    assert control.embed_dims == 32 and sum(p.numel() for p in control.parameters()) == 64
    out = control(x, padding_mask=right_padding(), queries=slice(0, 1))
    torch.testing.assert_close(out, control(x)[:, :1])
