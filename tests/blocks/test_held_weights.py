"""Settings and values that a record vouches for are compared, not believed."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lm4ve.blocks import LLMBlock, MLPBlock, frozen_tensors
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
from tests.helpers.families import FAMILIES, write_huggingface


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


def unfilled(block: nn.Module) -> None:
    block.to_empty(device='cpu')


def written(block: nn.Module) -> None:
    list(frozen_tensors(block).values())[-2].data.mul_(1.5)


#: What spoils the weights -> the first change that hides it.
SPOILS = {
    'rounded to float16': lambda block: block.half().float(),
    'rounded to bfloat16': lambda block: block.bfloat16().float(),
    'unfilled': unfilled,
    'unfilled, then cast': lambda block: block.to_empty(device='cpu').half(),
    'cast, then unfilled': lambda block: block.half().to_empty(device='cpu'),
    'unfilled from meta': lambda block: block.to('meta').to_empty(device='cpu'),
    'written': written,
}


@pytest.mark.parametrize('spoil', SPOILS.values(), ids=SPOILS)
def test_spoiled_weights_no_longer_match_their_fingerprint(spoil):
    block = LLMBlock(arch=FAMILIES['bert'])  # its values do not fit 16 bits
    state = block.state_dict()
    spoil(block)
    with pytest.raises(CheckpointError, match='no longer match their fingerprint'):
        block.load_state_dict(state)
    with pytest.raises(CheckpointError, match='no longer match their fingerprint'):
        block.check_frozen()
    if spoil is not written:  # nothing tells of that but a look
        with pytest.raises(CheckpointError, match='no longer match their fingerprint'):
            block.state_dict()


@pytest.mark.parametrize(
    'keep',
    [
        lambda b: b.half(),
        lambda b: b.double().float(),
        lambda b: b.to('cpu'),
        copy.deepcopy,
        lambda b: copy.deepcopy(b).half(),
        lambda b: pickle.loads(pickle.dumps(b)),
    ],
)
def test_casts_moves_and_copies_that_lose_nothing_are_no_damage(keep):
    block = LLMBlock(arch=FAMILIES['bert'])
    state = block.state_dict()
    kept = keep(block)
    kept.load_state_dict(state)
    kept.check_frozen()
    assert SOURCE_KEY in kept.state_dict()


def test_values_of_a_16_bit_source_survive_the_cast_and_match(checkpoints, tmp_path):
    write_huggingface(tmp_path / 'half', 'llama', dtype=torch.float16)
    block = LLMBlock(str(tmp_path / 'half'))
    block.half().float()
    block.check_frozen()
