"""'tiled': query head j reads head j % K of keys and values, by weights in another order."""

import pytest
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.provenance import SOURCE_KEY, decode_source
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import random_model, write_huggingface

HEADS = 8
KV_HEADS = 2
SIZES = dict(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=4)
OPTIONS = [dict(), dict(rotary=True, causal=True), dict(trainable='all')]


def repeated(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight or bias of K heads as one of all heads, in which head j is j % K."""
    repeats = [HEADS // KV_HEADS] + [1] * (weight.dim() - 1)
    return weight.repeat(repeats)


@pytest.fixture(params=['llama', 'qwen2'])
def folders(request, tmp_path):
    """A language model with shared heads, and one in which each head has its own copy."""
    shared = write_huggingface(tmp_path / 'shared', request.param, **SIZES)
    model = random_model(request.param, **SIZES)
    sizes = dict(SIZES, num_key_value_heads=HEADS)
    expanded = type(model)(random_model(request.param, **sizes).config)
    state = model.state_dict()
    for name in state:
        if '.k_proj.' in name or '.v_proj.' in name:
            state[name] = repeated(state[name])
    expanded.load_state_dict(state)
    expanded.save_pretrained(tmp_path / 'expanded')
    return str(shared), str(tmp_path / 'expanded')


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_tiled_heads_read_what_copies_of_them_would(folders, options):
    shared, expanded = folders
    x = torch.randn(2, 5, 32)
    tiled = LLMBlock(shared, kv_heads='tiled', **options)
    expected = LLMBlock(expanded, **options)(x)
    assert_equal_but_for_rounding(tiled(x), expected, tiled)
    grouped = LLMBlock(shared, **options)(x)
    assert (grouped - expected).abs().max() > 0.01


@pytest.mark.parametrize('low_rank', ['off', 'fold', 'absorb'])
def test_low_rank_reads_tiled_heads_too(folders, low_rank):
    x = torch.randn(2, 6, 8)
    necks = []
    for folder, kv_heads in zip(folders, ('tiled', 'grouped'), strict=True):
        torch.manual_seed(0)
        block = dict(type='LLMBlock', checkpoint=folder, kv_heads=kv_heads)
        neck = LLMBlockNeck(8, block, low_rank=low_rank, out_type='cls_token')
        necks.append(neck.eval())
    tiled, expected = necks
    assert_equal_but_for_rounding(tiled(x), expected(x), tiled)


def test_a_checkpoint_of_the_other_order_is_refused_and_of_none_not(folders):
    shared, expanded = folders
    tiled = LLMBlock(shared, kv_heads='tiled').state_dict()
    assert decode_source(tiled[SOURCE_KEY])['kv_heads'] == 'tiled'
    grouped = LLMBlock(shared).state_dict()
    assert 'kv_heads' not in decode_source(grouped[SOURCE_KEY])
    with pytest.raises(CheckpointError, match="block.kv_heads='tiled'"):
        LLMBlock(shared).load_state_dict(tiled)
    with pytest.raises(CheckpointError, match="block.kv_heads='grouped'"):
        LLMBlock(shared, kv_heads='tiled').load_state_dict(grouped)
    # Without shared heads both are the same, and nothing is recorded.
    alone = LLMBlock(expanded, kv_heads='tiled').state_dict()
    LLMBlock(expanded).load_state_dict(alone)


def test_other_words_and_families_are_refused(checkpoints):
    with pytest.raises(UserError, match='block.kv_heads'):
        LLMBlock(checkpoints('llama'), kv_heads='tile')
    with pytest.raises(UserError, match='sinks have an order'):
        LLMBlock(checkpoints('gpt_oss'), kv_heads='tiled')
