"""A saved model remembers its language model and settings; others are refused by the field."""

import copy
from collections import OrderedDict

import pytest
import torch
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

import lm4ve
from lm4ve.blocks import LLMBlock, MLPBlock
from lm4ve.blocks.language_model import LanguageModel
from lm4ve.blocks.record import accept_records
from lm4ve.blocks.record_text import KEY as RECORD
from lm4ve.blocks.record_text import decode_record, encode_record
from lm4ve.blocks.tokens import take_tokens
from lm4ve.errors import CheckpointError
from lm4ve.necks import LLMBlockNeck
from lm4ve.release.states import trained_state
from tests.helpers.blocks.inputs import tokens
from tests.helpers.blocks.reference import WITH_ROTARY
from tests.helpers.families import FAMILIES
from tests.helpers.logs import record_logs
from tests.helpers.old_records import old_block_record

KEY = f'block.{RECORD}'


def host_of(*args, **kwargs) -> nn.Sequential:
    """A mapper and a block, as a neck has them."""
    return nn.Sequential(
        OrderedDict(mapper=nn.Linear(32, 32), block=LLMBlock(*args, **kwargs))
    )


def embedded(host: nn.Module) -> dict:
    """The state of a self-contained release."""
    state = host.state_dict()
    for name, tensor in host.block.frozen_state().items():
        state[f'block.{name}'] = tensor
    return state


@pytest.mark.parametrize('trainable', ['none', 'norms', 'all'])
@pytest.mark.bitwise
def test_states_load_strictly_and_through_mmengine(checkpoints, trainable, tmp_path):
    path = checkpoints('llama')
    file = str(tmp_path / 'model.pth')
    host = host_of(path, trainable=trainable)
    with torch.no_grad():
        for param in host.block.parameters():
            param.add_(torch.randn(param.shape))
    state = get_state_dict(host)
    if trainable == 'none':
        assert sorted(state) == [KEY, 'mapper.bias', 'mapper.weight']
    save_checkpoint(dict(state_dict=state), file)
    torch.load(file, weights_only=True)
    other = host_of(path, trainable=trainable)
    other.load_state_dict(host.state_dict(), strict=True)
    assert torch.equal(host(tokens()), other(tokens()))
    through_file = host_of(path, trainable=trainable)
    load_checkpoint(through_file, file, map_location='cpu', strict=True)
    assert torch.equal(host(tokens()), through_file(tokens()))


def build(checkpoints, layers=(1,), seed=0, **options) -> nn.Module:
    return host_of(checkpoints('llama', seed=seed), layers=layers, **options)


@pytest.mark.parametrize(
    'options', [dict(layers=(0,)), dict(seed=1), dict(pretrained=False)]
)
def test_another_language_model_is_an_error_that_names_both(
    checkpoints, options, tmp_path
):
    host = build(checkpoints)
    other = build(checkpoints, **options)
    state = other.state_dict()
    before = copy.deepcopy(host.block.source)
    file = str(tmp_path / 'model.pth')
    save_checkpoint(dict(state_dict=state), file)
    for load in (
        lambda: host.load_state_dict(state),
        lambda: host.load_state_dict(state, strict=False),
        lambda: load_checkpoint(host, file),
        lambda: host.load_state_dict(embedded(other)),
    ):
        message = 'other frozen weights.*neck.block.ch'
        with pytest.raises(CheckpointError, match=message) as error:
            load()
        for source in (before, other.block.source):
            assert source['source'] in str(error.value)
            assert f'layers {source["layers"]}' in str(error.value)
            assert source['fingerprint'][:12] in str(error.value)
    assert host.block.source == before


def test_a_state_without_a_record_is_missing_a_key(checkpoints):
    host = host_of(checkpoints('llama'))
    state = host.state_dict()
    del state[KEY]
    with pytest.raises(RuntimeError, match=KEY):
        host.load_state_dict(state)
    result = host.load_state_dict(state, strict=False)
    assert result.missing_keys == [KEY]


def as_record(text: bytes) -> torch.Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)


DAMAGED = [
    torch.tensor(10**15),
    torch.tensor(1, dtype=torch.uint8),
    {'a': 1},
    7,
    torch.ones(4),
    as_record(b'[' * 100_000),
    as_record(b''),
    as_record(b'{'),
    as_record(b'[]'),
    as_record(b'{}'),
    as_record(b'\xff\xfe'),
]


@pytest.mark.parametrize('record', DAMAGED)
def test_a_damaged_record_is_named(checkpoints, record):
    host = host_of(checkpoints('llama'))
    with pytest.raises(CheckpointError, match='_extra_state.*LLMBlock is damaged'):
        host.load_state_dict({**host.state_dict(), KEY: record})


WRONG_FIELDS = [
    (dict(shadow=True), 'unknown field.*shadow'),
    (dict(format=99), 'format=99, expected 3'),
    (dict(dtype=5), 'dtype=5 has another type'),
    (dict(causal='yes'), "causal='?yes'? has another type"),
    (dict(config=5), 'config=5 has another type'),
    (dict(layers='1'), 'layers=.*another type'),
    (dict(fingerprint=None), 'fingerprint=None has another type'),
]


@pytest.mark.parametrize('changes, message', WRONG_FIELDS)
def test_a_record_with_other_fields_is_refused(checkpoints, changes, message):
    host = host_of(checkpoints('llama'))
    state = host.state_dict()
    state[KEY] = encode_record(host.block.source | changes)
    with pytest.raises(CheckpointError, match=f'_extra_state.*{message}'):
        host.load_state_dict(state, strict=False)


def test_a_number_that_no_float_can_hold_is_another_value(checkpoints):
    host = host_of(checkpoints('llama'))
    state = host.state_dict()
    state[KEY] = encode_record(host.block.source | dict(causal_suffix=10**400))
    with pytest.raises(CheckpointError, match='made with .*causal_suffix=1000'):
        host.load_state_dict(state)


RARE = dict(clip_qkv=0.1, is_causal=False, layer_rope_theta=[1e2, 0.0])


@pytest.mark.bitwise
@pytest.mark.parametrize('variant', FAMILIES)
def test_fields_that_a_family_does_not_read_have_no_effect(variant):
    """Neither on the block nor on its record."""
    model = LanguageModel(None, FAMILIES[variant])
    for name, value in RARE.items():
        if name in model.spec.reads or (variant, name) == ('iquestcoder', 'clip_qkv'):
            continue  # or the family's config refuses it
        ways = [dict(causal=True), {}]
        if variant in WITH_ROTARY:
            ways.append(dict(rotary=True))
        for options in ways:
            plain = LLMBlock(arch=FAMILIES[variant], **options)
            other = LLMBlock(arch={**FAMILIES[variant], name: value}, **options)
            assert torch.equal(other(tokens()), plain(tokens())), name
            assert other.source == plain.source, name


def test_a_fully_trained_block_takes_any_record(checkpoints):
    # All of its weights are in the state; where they came from is history.
    path = checkpoints('llama')
    state = host_of(path, layers=(0,), trainable='all').state_dict()
    host = host_of(path, layers=(1,), trainable='all')
    host.load_state_dict(state, strict=True)


@pytest.mark.parametrize('trainable', ['none', 'norms'])
@pytest.mark.bitwise
def test_embedded_weights_need_no_language_model(checkpoints, trainable, tmp_path):
    host = host_of(checkpoints('llama'), trainable=trainable)
    other = host_of(arch=FAMILIES['llama'], trainable=trainable)
    file = str(tmp_path / 'release.pth')
    torch.save(dict(state_dict=embedded(host)), file)
    load_checkpoint(other, file, strict=True)
    assert torch.equal(other(tokens()), host(tokens()))
    assert other.block.source == host.block.source
    # And what is saved of it is accepted where the language model is there.
    host.load_state_dict(other.state_dict(), strict=True)


@pytest.mark.bitwise
def test_a_release_that_a_copy_loads_leaves_the_original(checkpoints):
    state = embedded(host_of(checkpoints('llama')))
    original = host_of(arch=FAMILIES['llama'])
    expected = original(tokens())
    record = copy.deepcopy(original.block.source)
    copied = copy.deepcopy(original)
    copied.load_state_dict(state)
    assert not torch.equal(copied(tokens()), expected)
    assert torch.equal(original(tokens()), expected)
    assert original.block.source == record


@pytest.mark.bitwise
def test_a_block_does_not_change_with_the_release_that_it_has_loaded(checkpoints):
    state = embedded(host_of(checkpoints('llama')))
    host = host_of(arch=FAMILIES['llama'])
    host.load_state_dict(state)
    expected = host(tokens())
    for tensor in state.values():
        tensor.zero_()
    assert torch.equal(host(tokens()), expected)


@pytest.mark.bitwise
def test_a_fused_model_keeps_its_weights_when_the_original_loads_a_release(checkpoints):
    release = LLMBlockNeck(8, LLMBlock(checkpoints('llama')), norm_cfg=None)
    original = LLMBlockNeck(8, LLMBlock(arch=FAMILIES['llama']), norm_cfg=None)
    fused = lm4ve.fuse(original)
    x = torch.randn(2, 5, 8)
    expected = fused(x)
    original.load_state_dict(embedded(release))
    assert torch.equal(fused(x), expected)


@pytest.mark.parametrize('by', ['arch', 'checkpoint'])
def test_embedded_weights_are_those_of_their_fingerprint(checkpoints, by):
    host = host_of(checkpoints('llama'))
    state = {**embedded(host), **trained_state(host)}
    other = host
    if by == 'arch':
        other = host_of(arch=FAMILIES['llama'])
    other.load_state_dict(state)
    name = next(name for name in state if 'q_proj' in name)
    state[name] = state[name] + 1e-3
    with pytest.raises(CheckpointError, match='embedded weights are damaged'):
        host_of(arch=FAMILIES['llama']).load_state_dict(state)


def test_embedded_weights_of_another_shape_are_refused(checkpoints):
    state = embedded(host_of(checkpoints('llama')))
    for arch in (FAMILIES['bert'], FAMILIES['llama-gqa']):
        host = host_of(arch=arch)
        before = host.block.frozen_state()
        with pytest.raises(CheckpointError, match='self-contained.*block.arch'):
            host.load_state_dict(state)
        torch.testing.assert_close(host.block.frozen_state(), before, rtol=0, atol=0)


# Settings of the block -> another value.
OF_BLOCK = {
    'causal': True,
    'rotary': True,
    'final_norm': True,
}
# Settings of the neck -> other values.
OF_NECK = {
    'residual': ['inner'],
    'layout': ['NBC'],
    'num_extra_tokens': [1],
    'index': [0],
    'keep_others': [True],
    'out_type': ['raw'],
    'norm_cfg': [None, dict(type='LN', eps=1e-3)],
}


def other_settings() -> list[tuple]:
    """Return ``(kind of block, field, another value)``."""
    found = []
    for kind in ('none', 'all', 'mlp'):
        for field, value in OF_BLOCK.items():
            # A trained norm is in the state itself.
            if kind == 'none' or (kind == 'all' and field != 'final_norm'):
                found.append((kind, field, value))
        for field, values in OF_NECK.items():
            found.extend((kind, field, value) for value in values)
    return found


@pytest.mark.parametrize('kind, field, value', other_settings())
def test_a_state_of_other_settings_is_refused_by_field(checkpoints, kind, field, value):
    """The record of a version that lacks the setting loads."""

    def make(**changes) -> LLMBlockNeck:
        block_options = dict(causal=False, rotary=False, final_norm=False)
        neck_options = dict(out_type='avg_featmap')
        for name, changed in changes.items():
            if name in block_options:
                block_options[name] = changed
            else:
                neck_options[name] = changed
        if kind == 'mlp':
            block = MLPBlock(32)
        else:
            block = LLMBlock(checkpoints('llama'), trainable=kind, **block_options)
        return LLMBlockNeck(8, block, **neck_options)

    state = make().state_dict()
    make(layout='BCHW').load_state_dict(state)  # what it is without a word
    owner = 'model.neck.block' if field in OF_BLOCK else 'model.neck'
    name = f'{owner}.{field}'
    with pytest.raises(CheckpointError, match=f'made with {name}='):
        make(**{field: value}).load_state_dict(state, strict=False)

    key = KEY if field in OF_BLOCK else RECORD
    record = decode_record(state[key], key)
    for lacking in (field, 'dtype', 'config'):
        record.pop(lacking, None)
    state[key] = encode_record(record)
    lacks_norm = field == 'norm_cfg' and value is None
    make(**{field: value}).load_state_dict(state, strict=not lacks_norm)


LLAMA3 = dict(rope_type='llama3', rope_theta=1e4, factor=8.0, low_freq_factor=1.0)
LLAMA3.update(high_freq_factor=4.0, original_max_position_embeddings=32)
FUNCTIONS = [
    ('llama', dict(num_attention_heads=8, num_key_value_heads=8, head_dim=4), {}),
    ('llama', dict(rms_norm_eps=1e-3), {}),
    (
        'llama',
        dict(rope_parameters=dict(rope_type='default', rope_theta=5e5)),
        dict(rotary=True),
    ),
    ('llama', dict(rope_parameters=LLAMA3), dict(rotary=True)),
    ('granite', dict(residual_multiplier=1.0), {}),
    ('gemma2', dict(attn_logit_softcapping=None), {}),
    ('mistral', dict(sliding_window=3), dict(causal=True)),
    ('gpt2-scaled', dict(scale_attn_by_inverse_layer_idx=False), {}),
]
UNUSED = dict(vocab_size=64, attention_dropout=0.1, max_position_embeddings=32)
UNUSED.update(rope_parameters=LLAMA3, pad_token_id=3, num_hidden_layers=3)


@pytest.mark.parametrize('variant, changes, options', FUNCTIONS)
def test_an_edited_config_with_the_same_weights_is_refused(variant, changes, options):
    """Every field that changes the function counts, also of an ``arch`` block."""
    arch = FAMILIES[variant]
    block = LLMBlock(arch=arch, layers=(1,), **options)
    other = LLMBlock(arch=dict(arch, **changes), layers=(1,), **options)
    assert block.source['fingerprint'] == other.source['fingerprint']
    assert not torch.allclose(block(tokens()), other(tokens()), atol=1e-6)
    field = next(iter(changes))
    with pytest.raises(CheckpointError, match=f"the language model's {field}="):
        other.load_state_dict(block.state_dict(), strict=False)


@pytest.mark.bitwise
def test_fields_without_effect_are_not_compared():
    arch = FAMILIES['llama']
    block = LLMBlock(arch=arch, layers=(1,))
    other = LLMBlock(arch=dict(arch, **UNUSED), layers=(1,))
    assert torch.equal(block(tokens()), other(tokens()))
    other.load_state_dict(block.state_dict())


@pytest.mark.parametrize('variant, causal', [('mistral', True), ('modernbert', False)])
@pytest.mark.bitwise
def test_a_checkpoint_from_before_windows_loads_without_them(variant, causal):
    options = dict(arch=FAMILIES[variant], layers=(0,), causal=causal)
    block = LLMBlock(**options)
    without = LLMBlock(**options, window=False)
    old = old_block_record(without.state_dict(), window=None, config=None)
    for record in (without.state_dict(), dict(llm_source=old)):
        with pytest.raises(CheckpointError, match='neck.block.window=False'):
            block.load_state_dict(record)
        without.load_state_dict(record)


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
    message = "residual='outer', the config has 'inner'"
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=message):
            other.load_state_dict(state, strict=strict)
    accept_records(other, state)
    other.load_state_dict(state)
    state[RECORD] = torch.zeros(3, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match='LLMBlockNeck is damaged'):
        other.load_state_dict(state)


def test_settings_that_change_nothing_are_not_compared(checkpoints):
    # BERT has neither a final norm nor rotary embedding.
    state = LLMBlock(checkpoints('bert'), final_norm=False).state_dict()
    LLMBlock(checkpoints('bert'), final_norm=True).load_state_dict(state)


def test_another_dtype_is_a_warning(checkpoints, monkeypatch):
    logged = record_logs(monkeypatch, 'lm4ve.blocks.record')
    state = LLMBlock(checkpoints('llama')).state_dict()
    LLMBlock(checkpoints('llama'), dtype='bfloat16').load_state_dict(state)
    assert "dtype='float32', the model computes in 'bfloat16'" in logged[-1]


def test_the_neck_of_another_kind_of_block_is_refused_though_loading_is_not_strict(
    checkpoints,
):
    llm = LLMBlockNeck(8, LLMBlock(checkpoints('llama')))
    mlp = LLMBlockNeck(8, MLPBlock(32))
    with pytest.raises(CheckpointError, match='lacks .*block._extra_state'):
        llm.load_state_dict(mlp.state_dict(), strict=False)
    with pytest.raises(
        CheckpointError, match='has .*block._extra_state.* is a MLPBlock'
    ):
        mlp.load_state_dict(llm.state_dict(), strict=False)
