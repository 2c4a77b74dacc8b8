"""Which tokens are computed, of which layers, in which type."""

import pytest
import torch

from lm4ve.blocks import LLMBlock, MLPBlock
from lm4ve.errors import UserError
from tests.blocks.test_families import right_padding, tokens

QUERIES = {
    'first': slice(0, 1),
    'range': slice(1, 5),
    'step': slice(None, None, 2),
    'last': slice(-1, None),
    'none of them': slice(0, 0),
    'indices': torch.tensor([[5, 0], [2, 2]]),
    'one index': torch.tensor([[3], [0]]),
}


def gathered(full: torch.Tensor, queries) -> torch.Tensor:
    if isinstance(queries, slice):
        return full[:, queries]
    return torch.stack([f[q] for f, q in zip(full, queries, strict=True)])


@pytest.mark.parametrize('queries', QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize('layers', [(0,), (0, 1), (1, 0)])
@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize(
    'variant, rotary',
    [
        ('llama-gqa', False),
        ('llama-gqa', True),
        ('gemma3_text', True),
        ('phi', True),
        ('smollm3', True),
        ('gpt2', False),
        ('falcon-40b', True),
        ('opt-350m', False),
        ('bert', False),
    ],
)
def test_queries_give_the_same_tokens_as_the_full_output(
    checkpoints, variant, rotary, causal, layers, queries
):
    block = LLMBlock(checkpoints(variant), layers=layers, causal=causal, rotary=rotary)
    x = tokens()
    for padding in (None, right_padding()):
        torch.testing.assert_close(
            block(x, padding, queries), gathered(block(x, padding), queries), atol=1e-6, rtol=1e-5
        )


def test_only_the_queried_tokens_pass_the_last_mlp(checkpoints):
    block = LLMBlock(checkpoints('llama'), layers=(0, 1))
    seen = []
    for layer in block.layers:
        layer.mlp.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
        layer.q_proj.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    block(tokens(), queries=slice(0, 1))
    assert seen == [6, 6, 1, 1]


@pytest.mark.parametrize(
    'queries',
    [
        0,
        [0, 1],
        torch.tensor([0, 1]),
        torch.tensor([[0], [1]], dtype=torch.int32),
        torch.ones(2, 6, dtype=torch.bool),
        torch.zeros(3, 1, dtype=torch.long),
    ],
    ids=['int', 'list', '1d', 'int32', 'mask', 'other batch'],
)
def test_other_queries_are_refused(checkpoints, queries):
    block = LLMBlock(checkpoints('llama'))
    with pytest.raises(UserError, match=r'queries(=| must be)'):
        block(tokens(), queries=queries)


def test_layers_run_in_the_given_order(checkpoints):
    path = checkpoints('llama')
    x = tokens()
    first, second = (LLMBlock(path, layers=(i,), final_norm=False) for i in (0, 1))
    for layers, expected in (((0, 1), second(first(x))), ((1, 0), first(second(x)))):
        block = LLMBlock(path, layers=layers, final_norm=False)
        assert torch.equal(block(x), expected)


def test_negative_layers_count_from_the_end(checkpoints):
    path = checkpoints('llama')
    block = LLMBlock(path, layers=(-2, -1))
    assert block.source['layers'] == [0, 1]
    assert torch.equal(block(tokens()), LLMBlock(path, layers=(0, 1))(tokens()))
    assert LLMBlock(path).source['layers'] == [1]


@pytest.mark.parametrize('layers', [(2,), (0, -3), (1, -1), (), 1, ('a',), None])
def test_layers_that_are_not_there_are_refused(checkpoints, layers):
    with pytest.raises(UserError, match='block.layers'):
        LLMBlock(checkpoints('llama'), layers=layers)


@pytest.mark.parametrize('variant', ['llama', 'gemma2', 'gpt2', 'bert'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('rotary', [False, True])
def test_16_bit_blocks_are_close_and_keep_the_input_type(checkpoints, variant, dtype, rotary):
    rotary = rotary and variant in ('llama', 'gemma2')
    path = checkpoints(variant)
    block = LLMBlock(path, rotary=rotary, dtype=dtype)
    x = tokens()
    out, full = (block(x, right_padding()), LLMBlock(path, rotary=rotary)(x, right_padding()))
    assert out.dtype == torch.float32
    scale = full.abs().max()
    assert (out - full)[~right_padding()].abs().max() / scale < 3e-2
    for other in (torch.bfloat16, torch.float16, torch.float64):
        assert block(x.to(other)).dtype == other


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_autocast_does_not_reach_into_the_block(checkpoints, dtype):
    block = LLMBlock(checkpoints('llama'), dtype=dtype)
    seen = []
    for name, module in block.named_modules():
        if name.endswith('_proj'):
            module.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    x = tokens()
    with torch.autocast('cpu', torch.bfloat16):
        inside = block(x)
    assert set(seen) == {getattr(torch, dtype)}
    assert torch.equal(inside, block(x))


def test_rotary_tables_stay_fp32_whatever_the_block_is_cast_to(checkpoints):
    block = LLMBlock(checkpoints('llama'), rotary=True)
    # Weights like these survive bf16, positions beyond 256 would not.
    block.to(torch.bfloat16).to(torch.float32)
    x = torch.randn(1, 400, 32)
    expected = LLMBlock(checkpoints('llama'), rotary=True)(x)
    assert torch.equal(block(x), expected)


def test_the_mlp_control_takes_what_a_block_takes():
    control = MLPBlock(32)
    x = tokens()
    assert control.embed_dims == 32
    assert sum(p.numel() for p in control.parameters()) == 64
    out = control(x, padding_mask=right_padding(), queries=slice(0, 1))
    torch.testing.assert_close(out, control(x)[:, :1])
