"""Each family's layer equals ``transformers``' own, however it is used, or is refused."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm4ve.blocks import FAMILIES as ROWS
from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.errors import CheckpointError, UnsupportedModelError, UserError
from tests.helpers.blocks.inputs import right_padding, tokens
from tests.helpers.blocks.reference import (
    NO_ROTARY,
    WITH_ROTARY,
    reference_layer,
)
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAMILIES, random_model, write_huggingface
from tests.helpers.own_families import OWN_FAMILIES
from tests.helpers.tasks import ROOT
from tests.helpers.wrappers import WRAPPERS
from tools.dev import write_tables


def ways() -> list[tuple]:
    """Return ``(variant, causal, rotary, layer)``: bidirectional, and as the model is."""
    found = []
    for variant in FAMILIES:
        # Of granite_swa, whose model has several rotary modules, no tables can be had.
        has_rotary = variant in WITH_ROTARY and variant != 'granite_swa'
        for layer in (0, 1):
            found.append((variant, False, False, layer))
            found.append((variant, True, has_rotary, layer))
            if has_rotary:
                found.append((variant, False, True, layer))
    return found


def test_every_family_that_is_not_refused_has_a_tiny_config():
    supported = {kind for kind, row in ROWS.items() if not row.is_refused}
    assert {f['model_type'] for f in FAMILIES.values()} | {*OWN_FAMILIES} == supported


@pytest.mark.parametrize('variant, causal, rotary, layer', ways())
def test_equals_the_layer_of_transformers(checkpoints, variant, causal, rotary, layer):
    options = dict(layers=(layer,), causal=causal, rotary=rotary, final_norm=False)
    block = LLMBlock(checkpoints(variant), **options)
    for padding in (None, right_padding()):
        x = tokens()
        expected = reference_layer(
            random_model(variant), layer, x, causal, rotary, padding
        )
        got = block(x, padding)
        if padding is not None:
            got = got[~padding]
            expected = expected[~padding]
        assert_equal_but_for_rounding(got, expected, block)


@pytest.mark.parametrize('variant', ['llama', 'gemma2'])
def test_left_padding_of_a_causal_block_stays_finite(checkpoints, variant):
    # The first tokens have nothing to look at; what becomes of them must not
    # spoil the others in the next layer.
    block = LLMBlock(checkpoints(variant), layers=(0, 1), causal=True)
    padding = right_padding().flip(1)
    x = tokens().requires_grad_()
    out = block(x, padding)
    alone = block(x[1:, 2:])
    assert_equal_but_for_rounding(out[1:, 2:], alone, block)
    out[~padding].sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('variant', FAMILIES)
def test_final_norm_is_the_models_with_unit_gain(checkpoints, variant):
    path = checkpoints(variant)
    plain = LLMBlock(path, final_norm=False)
    block = LLMBlock(path, final_norm=True)
    norm = final_norm_of(random_model(variant))
    assert (block.final_norm is None) == (norm is None)
    if norm is None:
        return
    eps = getattr(norm, 'variance_epsilon', getattr(norm, 'eps', 1e-5))
    x = tokens()
    out = plain(x)
    is_centered = 'LayerNorm' in type(norm).__name__ and variant not in ('t5', 'mt5')
    if is_centered:
        out = out - out.mean(-1, keepdim=True)
    expected = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + eps)
    assert_equal_but_for_rounding(block(x), expected, block)


def final_norm_of(model):
    """Return a model's norm after the last layer, whatever it is called; None if none."""
    modules = dict(model.named_modules())
    for name in (
        'norm',
        'final_layernorm',
        'final_layer_norm',
        'decoder.final_layer_norm',
        'ln_f',
        'layer_norm',
        'final_norm',
        'LayerNorm',
        'encoder.ln',
        'encoder.final_layer_norm',
        'embedding_norm',
    ):
        if name in modules:
            return modules[name]
    return None


@pytest.mark.parametrize('variant', NO_ROTARY)
def test_rotary_is_refused_where_there_is_none(checkpoints, variant):
    with pytest.raises(
        UserError, match='block.rotary.* no rotary .*Fix: block.rotary='
    ):
        LLMBlock(checkpoints(variant), rotary=True)


@pytest.mark.parametrize('variant', ['starcoder2', 'gpt2', 'phi', 'opt', 'mixtral'])
@pytest.mark.bitwise
def test_a_trained_block_has_no_dropout_of_its_own(checkpoints, variant):
    changes = {}
    if variant == 'mixtral':
        changes['router_jitter_noise'] = 0.5
    block = LLMBlock(checkpoints(variant, **changes), trainable='all').train()
    x = tokens()
    assert torch.equal(block(x), block(x))


def test_text_part_of_a_nested_config(tmp_path):
    from transformers import Gemma3Config, Gemma3Model

    vision = dict(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    vision.update(image_size=28, patch_size=14)
    config = Gemma3Config(text_config=FAMILIES['gemma3_text'], vision_config=vision)
    model = Gemma3Model(config).eval()
    text = random_model('gemma3_text')
    model.language_model.load_state_dict(text.state_dict())
    model.save_pretrained(tmp_path)
    block = LLMBlock(str(tmp_path), layers=(0,), final_norm=False)
    x = tokens()
    assert_equal_but_for_rounding(block(x), reference_layer(text, 0, x), block)


def test_the_guides_have_the_tables_that_are_made():
    """The command finds every page as its tables are, and a change of each would be seen."""
    write_tables.main(['--check'])
    pages = [(ROOT / page).read_text(encoding='utf-8') for page in write_tables.PAGES]
    assert 'families and' in pages[0], 'python tools/dev/write_tables.py'
    for table in write_tables.TABLES.values():
        row = table().splitlines()[-1]
        (page,) = [page for page in pages if row in page]
        assert write_tables.with_tables(page.replace(row, '')) == page


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_the_text_part_of_a_wrapper_makes_a_block(wrapper):
    text = FAMILIES[WRAPPERS[wrapper]]
    block = LLMBlock(arch=dict(model_type=wrapper, text_config=text))
    assert block.source['model_type'] == WRAPPERS[wrapper]
    assert block.embed_dims == text['hidden_size']


@pytest.mark.parametrize('kind', [kind for kind in ROWS if ROWS[kind].is_refused])
def test_families_are_refused_with_the_reason(kind):
    with pytest.raises(UnsupportedModelError, match=f"'{kind}' is refused: "):
        LLMBlock(arch=dict(model_type=kind))


FULL = 'full_attention'
LINEAR = 'linear_attention'
UNUSABLE_LAYERS = [
    (
        'lfm2',
        dict(layer_types=[FULL, 'conv', 'conv'], num_hidden_layers=3),
        -1,
        "layer 2 of the type 'conv' .others are of full_attention: block.layers",
    ),
    (
        'qwen3_next',
        dict(layer_types=[LINEAR, FULL, LINEAR], num_hidden_layers=3),
        0,
        "layer 0 of the type 'linear_attention' .others are of full_attention",
    ),
    ('qwen3_5_text', dict(layer_types=[LINEAR] * 2), 0, "type 'linear_attention'"),
    ('gemma4_text', dict(num_kv_shared_layers=1, layer_types=[FULL] * 2), 1, 'own'),
    ('gemma4_text', dict(hidden_size_per_layer_input=8), 0, "token's id"),
    ('albert', dict(inner_group_num=2), 0, 'inner_group_num=2'),
]


@pytest.mark.parametrize('variant, changes, layer, reason', UNUSABLE_LAYERS)
def test_layers_are_refused_with_the_reason(variant, changes, layer, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        LLMBlock(arch=dict(FAMILIES[variant], **changes), layers=(layer,))


def test_scores_are_scaled_by_position_as_the_family_does(checkpoints):
    block = LLMBlock(checkpoints('ministral3'), rotary=True, final_norm=False)
    x = tokens(length=65)  # one more than are not scaled
    expected = reference_layer(random_model('ministral3'), 1, x, rotary=True)
    assert_equal_but_for_rounding(block(x), expected, block)


@pytest.mark.parametrize('variant', ['mixtral', 'qwen3_next'])
@pytest.mark.bitwise
def test_joined_experts_equal_stored_ones(tmp_path, variant):
    # One writer stores a matrix an expert, the other what the layer has.
    apart = write_huggingface(tmp_path / 'apart', variant)
    joined = write_huggingface(
        tmp_path / 'joined', variant, layout='sharded-safetensors'
    )
    assert any('.experts.3.' in name for name in load_file(apart / 'model.safetensors'))
    from_apart = LLMBlock(str(apart), layers=(0,))
    from_joined = LLMBlock(str(joined), layers=(0,))
    assert torch.equal(from_apart(tokens()), from_joined(tokens()))
    assert from_apart.source['fingerprint'] == from_joined.source['fingerprint']


@pytest.mark.parametrize('variant', ['glm4_moe', 'solar_open', 'minimax_m2'])
def test_what_chooses_experts_is_not_rounded(tmp_path, variant):
    names = [n for n, _ in random_model(variant).named_buffers()]
    router_biases = [n for n in names if n.endswith('_bias')]
    name = router_biases[-1]
    bias = torch.tensor([8.0, 8.001, 8.002, 8.003])
    write_huggingface(tmp_path, variant, extra={name: bias})
    block = LLMBlock(str(tmp_path), dtype='bfloat16')
    random = LLMBlock(str(tmp_path), dtype='bfloat16', pretrained=False)
    name_in_block = f'layers.0.layer.{name.partition("layers.1.")[2]}'
    assert torch.equal(frozen_tensors(block)[name_in_block], bias)
    assert dtypes_of(random) == dtypes_of(block)


def dtypes_of(block: LLMBlock) -> dict:
    return {name: tensor.dtype for name, tensor in frozen_tensors(block).items()}


DAMAGES = [
    lambda state, name: state.pop(name),
    lambda state, name: state.update({name: state[name][1:]}),
]


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_experts_are_refused(tmp_path, damage):
    file = write_huggingface(tmp_path, 'mixtral') / 'model.safetensors'
    state = load_file(file)
    damage(state, next(n for n in state if '.1.block_sparse_moe.experts.2.w1.' in n))
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    with pytest.raises(CheckpointError, match='expert'):
        LLMBlock(str(tmp_path))


@pytest.mark.bitwise
def test_layers_run_in_the_given_order(checkpoints):
    path = checkpoints('llama')
    x = tokens()
    first = LLMBlock(path, layers=(0,), final_norm=False)
    second = LLMBlock(path, layers=(1,), final_norm=False)
    orders = {
        (0, 1): second(first(x)),
        (1, 0): first(second(x)),
        (-2, -1): second(first(x)),
        (-1,): second(x),
    }
    for layers, expected in orders.items():
        block = LLMBlock(path, layers=layers, final_norm=False)
        assert torch.equal(block(x), expected)
        assert block.source['layers'] == [i % 2 for i in layers]


def test_scores_that_are_too_large_before_their_scale_stay_finite(pytestconfig):
    """A soft mask's weights are computed step by step; the fused attention scales in fp32."""
    layer = LLMBlock(arch=FAMILIES['llama'], dtype='float16').layers[0]
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, 4, 6, layer.head_dim)
    q, k, v = torch.randn(shape, generator=generator).sign().double()
    most = torch.finfo(torch.float16).max
    k = q = q * 2 ** math.ceil(math.log2(most / layer.head_dim) / 2)
    largest = (q @ k.transpose(-2, -1)).max()
    assert largest > most > layer.scale * largest
    factors = torch.ones(6, 6).double()
    out = layer.attend(q.half(), k.half(), v.half(), factors)
    assert out.isfinite().all()
    if pytestconfig.getoption('ulp'):
        return  # equal scores of this size, which are exact, get the whole weight or none
    expected = layer.attend(q, k, v, factors)
    eps = torch.finfo(torch.float16).eps
    assert (out.double() - expected).abs().max() <= 6 * eps


@pytest.mark.parametrize('variant', ['llama', 'gemma2', 'gpt2', 'bert'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_16_bit_blocks_are_close_and_keep_the_input_type(checkpoints, variant, dtype):
    options = dict(rotary=variant in ('llama', 'gemma2'))
    block = LLMBlock(checkpoints(variant), dtype=dtype, **options)
    full_block = LLMBlock(checkpoints(variant), **options)
    x = tokens()
    padding = right_padding()
    out = block(x, padding)[~padding]
    full = full_block(x, padding)[~padding]
    assert_equal_but_for_rounding(out, full, block, getattr(torch, dtype))
    for other in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert block(x.to(other)).dtype == other


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.bitwise
def test_autocast_does_not_reach_into_the_block(checkpoints, dtype):
    block = LLMBlock(checkpoints('llama'), dtype=dtype)
    types = set()

    def note(module, args, out):
        types.add(out.dtype)

    for name, module in block.named_modules():
        if name.endswith('_proj'):
            module.register_forward_hook(note)
    with torch.autocast('cpu', torch.bfloat16):
        inside = block(tokens())
    assert types == {getattr(torch, dtype)}
    assert torch.equal(inside, block(tokens()))


ROPES = {
    'dynamic': dict(rope_type='dynamic', rope_theta=1e4, factor=2.0),
    'longrope': dict(
        rope_type='longrope',
        rope_theta=1e4,
        factor=2.0,
        short_factor=[1.0] * 4,
        long_factor=[3.0] * 4,
        original_max_position_embeddings=8,
    ),
}


@pytest.mark.bitwise
@pytest.mark.parametrize('kind', ROPES)
def test_rotary_does_not_depend_on_earlier_lengths(kind):
    fields = dict(
        FAMILIES['llama'], max_position_embeddings=8, rope_parameters=ROPES[kind]
    )

    def block() -> LLMBlock:
        return LLMBlock(arch=fields, rotary=True)

    used = block()
    for length in (5, 40, 12, 5, 20, 9):
        x = torch.randn(2, length, 32)
        assert torch.equal(used(x), block()(x))


@pytest.mark.bitwise
def test_rotary_tables_stay_fp32_in_a_cast_block(checkpoints):
    block = LLMBlock(checkpoints('llama'), rotary=True)
    # Weights like these survive bf16, positions beyond 256 would not.
    block.to(torch.bfloat16).to(torch.float32)
    x = torch.randn(1, 400, 32)
    assert torch.equal(block(x), LLMBlock(checkpoints('llama'), rotary=True)(x))
