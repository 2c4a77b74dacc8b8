"""A checkpoint of a block or neck with other settings is refused by the field."""

import pytest
import torch
from torch import nn

from lm4ve.blocks import LLMBlock, MLPBlock, provenance
from lm4ve.blocks.layer import take_tokens
from lm4ve.errors import CheckpointError
from lm4ve.necks import LLMBlockNeck
from tests.blocks.test_families import tokens
from tests.helpers.families import FAMILIES


def neck(checkpoints, residual='none', **options) -> LLMBlockNeck:
    return LLMBlockNeck(8, LLMBlock(checkpoints('llama'), **options), residual=residual)


FEATURES = (
    *(dict(layout='NBC'), dict(num_extra_tokens=1), dict(index=0), dict(keep_others=True)),
    *(dict(out_type='raw'), dict(norm_cfg=None), dict(norm_cfg=dict(type='LN', eps=1e-3))),
)
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
        return LLMBlockNeck(8, block, **{'out_type': 'avg_featmap', **options})

    state = make().state_dict()
    make(layout='BCHW').load_state_dict(state)  # what it is without a word
    (field,) = other
    field = field.removesuffix('_cfg')
    with pytest.raises(CheckpointError, match=f'made with {provenance.SETTINGS[field]}='):
        make(**other).load_state_dict(state, strict=False)
    key = provenance.NECK_KEY if kind == 'mlp' else f'block.{provenance.SOURCE_KEY}'
    record = provenance.decode_source(state[key], key)
    old = {k: v for k, v in record.items() if k not in (field, 'dtype', 'config')}
    state[key] = provenance.encode_source(old)
    make(**other).load_state_dict(state, strict=other != dict(norm_cfg=None))


LLAMA3 = dict(rope_type='llama3', rope_theta=1e4, factor=8.0, low_freq_factor=1.0)
LLAMA3.update(high_freq_factor=4.0, original_max_position_embeddings=32)
FUNCTIONS = [
    ('llama', dict(num_attention_heads=8, num_key_value_heads=8, head_dim=4), {}),
    ('llama', dict(hidden_act='gelu'), {}),
    ('llama', dict(rms_norm_eps=1e-3), {}),
    ('llama', dict(rope_parameters=dict(rope_type='default', rope_theta=5e5)), dict(rotary=True)),
    ('llama', dict(rope_parameters=LLAMA3), dict(rotary=True)),
    ('granite', dict(residual_multiplier=1.0), {}),
    ('gemma2', dict(query_pre_attn_scalar=16), {}),
    ('gemma2', dict(attn_logit_softcapping=None), {}),
    ('mistral', dict(sliding_window=3), dict(causal=True)),
    ('gpt2-scaled', dict(scale_attn_by_inverse_layer_idx=False), {}),
    ('mixtral', dict(num_experts_per_tok=1), {}),
]
NO_FUNCTION = dict(vocab_size=64, attention_dropout=0.1, max_position_embeddings=32)
NO_FUNCTION.update(rope_parameters=LLAMA3, pad_token_id=3, num_hidden_layers=3)


@pytest.mark.parametrize('variant, changes, options', FUNCTIONS)
def test_an_edited_config_with_the_same_weights_is_refused(variant, changes, options):
    """Every field that changes the function counts, also of an ``arch`` block."""
    block, other = (
        LLMBlock(arch=dict(FAMILIES[variant], **c), layers=(1,), **options) for c in ({}, changes)
    )
    assert block.source['fingerprint'] == other.source['fingerprint']
    assert not torch.allclose(block(tokens()), other(tokens()), atol=1e-6)
    with pytest.raises(CheckpointError, match=f"the language model's {next(iter(changes))}="):
        other.load_state_dict(block.state_dict(), strict=False)


def test_fields_without_effect_are_not_compared():
    block, other = (
        LLMBlock(arch=dict(FAMILIES['llama'], **c), layers=(1,)) for c in ({}, NO_FUNCTION)
    )
    assert torch.equal(block(tokens()), other(tokens()))
    other.load_state_dict(block.state_dict())


@pytest.mark.parametrize('variant, causal', [('mistral', True), ('modernbert', False)])
def test_a_checkpoint_from_before_windows_is_used_without(variant, causal):
    options = dict(arch=FAMILIES[variant], layers=(0,), causal=causal)
    block, without = LLMBlock(**options), LLMBlock(**options, window=False)
    expected = without(tokens())
    assert not torch.allclose(block(tokens()), expected)
    with pytest.raises(CheckpointError, match='neck.block.window=False'):
        block.load_state_dict(without.state_dict())
    old = {k: v for k, v in without.source.items() if k not in ('window', 'config')}
    block.load_state_dict({provenance.SOURCE_KEY: provenance.encode_source(old)})
    assert torch.equal(block(tokens()), expected) and block.source['window'] is False


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
    provenance.accept_records(other, state)
    other.load_state_dict(state)
    state[provenance.NECK_KEY] = torch.zeros(3, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match='neck_settings.* is damaged'):
        other.load_state_dict(state)


def test_settings_that_change_nothing_are_not_compared(checkpoints):
    # BERT has neither a final norm nor rotary embedding.
    state = LLMBlock(checkpoints('bert'), final_norm=False).state_dict()
    LLMBlock(checkpoints('bert'), final_norm=True).load_state_dict(state)


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
