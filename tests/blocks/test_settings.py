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


FEATURES = (dict(layout='NBC'), dict(num_extra_tokens=1), dict(index=0), dict(keep_others=True))
SETTINGS_OF = {
    'none': (dict(causal=True), dict(rotary=True), dict(final_norm=True), dict(residual='inner')),
    'all': (dict(causal=True), dict(rotary=True), dict(residual='inner')),
    'mlp': (),
}


@pytest.mark.parametrize(
    'kind, other', [(k, o) for k, others in SETTINGS_OF.items() for o in (*others, *FEATURES)]
)
def test_a_state_of_other_settings_is_refused_by_field(checkpoints, kind, other):
    """An old record, which lacks the setting, loads."""

    def make(causal=False, rotary=False, final_norm=False, **options) -> LLMBlockNeck:
        block = MLPBlock(32)
        if kind != 'mlp':
            fields = dict(causal=causal, rotary=rotary, final_norm=final_norm, trainable=kind)
            block = LLMBlock(checkpoints('llama'), **fields)
        return LLMBlockNeck(8, block, out_type='avg_featmap', **options)

    state = make().state_dict()
    make(layout='BCHW').load_state_dict(state)  # what it is without a word
    (field,) = other
    with pytest.raises(CheckpointError, match=f'made with {SETTINGS[field]}='):
        make(**other).load_state_dict(state, strict=False)
    key = NECK_KEY if kind == 'mlp' else f'block.{SOURCE_KEY}'
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
