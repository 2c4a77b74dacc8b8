"""A checkpoint of a block or neck with other settings is refused by the field."""

import pytest
import torch
from torch import nn

from lm4ve.blocks import LLMBlock, MLPBlock
from lm4ve.blocks.layer import take_tokens
from lm4ve.blocks.provenance import (
    NECK_KEY,
    SETTINGS,
    SOURCE_KEY,
    accept_records,
    decode_source,
    encode_source,
)
from lm4ve.errors import CheckpointError
from lm4ve.necks import LLMBlockNeck


def neck(checkpoints, residual='none', **options) -> LLMBlockNeck:
    return LLMBlockNeck(8, LLMBlock(checkpoints('llama'), **options), residual=residual)


@pytest.mark.parametrize(
    'other',
    [dict(causal=True), dict(rotary=True), dict(final_norm=False), dict(residual='inner')],
    ids=lambda x: next(iter(x)),
)
@pytest.mark.parametrize('trainable', ['none', 'all'])
def test_a_state_of_other_settings_is_refused_by_field(checkpoints, other, trainable):
    state = neck(checkpoints, trainable=trainable, final_norm='final_norm' in other).state_dict()
    if 'final_norm' in other and trainable == 'all':
        pytest.skip('the norm is a tensor of the state')
    model = neck(checkpoints, trainable=trainable, **{'final_norm': False, **other})
    (field,) = other
    with pytest.raises(CheckpointError, match=SETTINGS[field]):
        model.load_state_dict(state, strict=False)


@pytest.mark.parametrize('block', ['llm', 'mlp'])
@pytest.mark.parametrize(
    'other',
    [dict(layout='NBC'), dict(num_extra_tokens=1), dict(index=0), dict(keep_others=True)],
    ids=lambda x: next(iter(x)),
)
def test_a_state_of_a_neck_that_reads_other_features_is_refused_by_field(checkpoints, block, other):
    """An old record, which lacks these settings, loads as before."""

    def make(**options) -> LLMBlockNeck:
        inner = LLMBlock(checkpoints('llama')) if block == 'llm' else MLPBlock(32)
        return LLMBlockNeck(8, inner, out_type='avg_featmap', **options)

    state = make().state_dict()
    (field,) = other
    with pytest.raises(CheckpointError, match=f'made with {SETTINGS[field]}='):
        make(**other).load_state_dict(state, strict=False)
    make(layout='BCHW').load_state_dict(state)  # what it is without a word
    key = f'block.{SOURCE_KEY}' if block == 'llm' else NECK_KEY
    record = decode_source(state[key], key)
    del record[field]
    state[key] = encode_source(record)
    make(**other).load_state_dict(state)


class Doubling(nn.Module):
    """A block of somebody's own."""

    embed_dims = 32

    def forward(self, x, padding_mask=None, queries=None):
        return 2 * take_tokens(x, queries)


@pytest.mark.parametrize('block', [lambda: MLPBlock(32), Doubling], ids=['mlp', 'own'])
def test_another_residual_around_any_block_is_refused(block):
    state = LLMBlockNeck(8, block(), residual='outer').state_dict()
    LLMBlockNeck(8, block(), residual='outer').load_state_dict(state)
    other = LLMBlockNeck(8, block(), residual='inner')
    for strict in (True, False):
        with pytest.raises(CheckpointError, match="residual='outer', the config has 'inner'"):
            other.load_state_dict(state, strict=strict)
    accept_records(other, state)
    other.load_state_dict(state)
    state[NECK_KEY] = torch.zeros(3, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match='neck_settings.* is damaged'):
        other.load_state_dict(state)


def test_settings_that_change_nothing_are_not_compared(checkpoints):
    # BERT has neither a final norm nor rotary embedding.
    state = LLMBlock(checkpoints('bert'), final_norm=False).state_dict()
    LLMBlock(checkpoints('bert'), final_norm=True).load_state_dict(state)


def test_a_record_without_settings_loads_as_before(checkpoints):
    state = neck(checkpoints).state_dict()
    record = decode_source(state[f'block.{SOURCE_KEY}'])
    old = {k: v for k, v in record.items() if k not in (*SETTINGS, 'dtype')}
    state[f'block.{SOURCE_KEY}'] = encode_source(old)
    neck(checkpoints, causal=True, residual='inner').load_state_dict(state)


def test_another_dtype_is_a_warning(checkpoints, monkeypatch):
    said = []
    monkeypatch.setattr('lm4ve.blocks.provenance.print_log', lambda text, **_: said.append(text))
    state = LLMBlock(checkpoints('llama')).state_dict()
    LLMBlock(checkpoints('llama'), dtype='bfloat16').load_state_dict(state)
    assert "dtype='float32', the model computes in 'bfloat16'" in said[-1]


def test_the_neck_of_another_kind_of_block_is_refused_though_loading_is_not_strict(checkpoints):
    llm, mlp = neck(checkpoints), LLMBlockNeck(8, MLPBlock(32))
    with pytest.raises(CheckpointError, match='lacks .*llm_source'):
        llm.load_state_dict(mlp.state_dict(), strict=False)
    with pytest.raises(CheckpointError, match='has .*llm_source.* is a MLPBlock'):
        mlp.load_state_dict(llm.state_dict(), strict=False)
