"""Fields of the papers that followed, each against a computation written by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from torch import nn

import lm4ve
from lm4ve.blocks import LLMBlock, count_parameters, frozen_tensors
from lm4ve.blocks.controls import AttentionBlock
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockInsert, LLMBlockNeck
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAMILIES, decoder_layers, random_model
from tests.helpers.necks.encoder import Encoder, batch, step, wrapped
from tests.helpers.necks.equality import MASK, C, assert_same, tokens

#: A tiny LLaMA whose weights are large enough that attention is not uniform.
ARCH = dict(FAMILIES['llama'], initializer_range=0.3)
BLOCK = dict(type='LLMBlock', arch=ARCH)


def build_neck(block=(), low_rank='off', **options) -> LLMBlockNeck:
    """Build a neck without a norm whose weights are the same, and large, every time.

    Args:
        block (dict): Fields of the block that differ from :data:`BLOCK`.
        low_rank (str): How the neck uses the low rank of the block's input.
        **options: More fields of the neck.
    """
    torch.manual_seed(0)
    options.setdefault('norm_cfg', None)
    neck = LLMBlockNeck(C, dict(BLOCK, **dict(block)), low_rank=low_rank, **options)
    for name, parameter in neck.named_parameters():
        if not name.startswith('norm'):
            nn.init.normal_(parameter, std=0.4)
    return neck


# --------------------------------------------------------------------------- causal masks
def test_causal_suffix_is_a_prefix_mask():
    block, plain = LLMBlock(arch=ARCH, causal_suffix=2), LLMBlock(arch=ARCH)
    x = torch.randn(2, 6, 32)
    expected = [plain(x[:, :4])]  # the prefix reads itself
    expected += [plain(x[:, : i + 1])[:, i:] for i in (4, 5)]
    assert_equal_but_for_rounding(block(x), torch.cat(expected, dim=1), block)


@pytest.mark.parametrize('low_rank', ['off', 'fold', 'auto'])
def test_a_soft_mask_closes_while_the_model_trains(low_rank):
    neck, x = build_neck(dict(causal=dict(soft=0.5)), low_rank=low_rank), tokens()
    layer, hidden = neck.block.layers[0], neck.mapper_in(x)
    normed = layer.attention_norm(hidden)
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    q, k, v = (
        p(normed).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
        for p in projections
    )
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    for progress, factor in (
        (0.0, 1.0),
        (0.125, 0.75),
        (0.5, 0.0),
        (1.0, 0.0),
        (None, 0.0),
    ):
        neck.train(progress is not None).set_progress(progress)
        weights = (q @ k.transpose(-2, -1) * layer.scale).softmax(-1)
        weights = torch.where(later, weights * factor, weights)
        expected = neck.mapper_out(
            neck.block.final_norm(layer.finish(hidden, weights @ v))
        )
        assert_equal_but_for_rounding(neck(x), expected, neck)


def test_a_soft_mask_is_refused_without_progress_and_with_padding():
    neck = build_neck(dict(causal=dict(soft=0.5))).train()
    assert neck.follows_progress
    with pytest.raises(UserError, match='NeckProgressHook'):
        neck(tokens())
    with pytest.raises(UserError, match='no padding'):
        neck.eval()(tokens(), padding_mask=torch.arange(5).expand(2, -1) > 3)


# --------------------------------------------------------------------- mappers and gate
@pytest.mark.parametrize('gate', [False, True, 'tanh'])
@pytest.mark.parametrize('residual', ['inner', 'outer'])
@pytest.mark.parametrize('low_rank', ['off', 'fold', 'absorb'])
def test_gate_scales_the_branch(gate, residual, low_rank):
    neck, x = build_neck(gate=gate, residual=residual, low_rank=low_rank), tokens()
    factor = 1 if not gate else neck.gate.tanh() if gate == 'tanh' else neck.gate
    hidden = neck.mapper_in(x)
    if residual == 'inner':
        expected = neck.mapper_out(hidden + factor * neck.block(hidden))
    else:
        expected = x + factor * neck.mapper_out(neck.block(hidden))
    assert_equal_but_for_rounding(neck(x), expected, neck)
    assert_equal_but_for_rounding(lm4ve.fuse(neck.eval())(x), expected, neck)
    if gate:
        assert not LLMBlockNeck(C, BLOCK, gate=gate, residual=residual).gate.any()


def test_mappers_are_what_their_fields_say():
    x = tokens()
    neck = build_neck(
        mapper=dict(bias=True, depth=2, act='ReLU', skip='LeakyReLU'), residual='both'
    )
    (a, _, b, _), (c, _, d, _) = neck.mapper_in, neck.mapper_out
    hidden = F.relu(b(F.gelu(a(x))))
    out = F.relu(d(F.gelu(c(neck.block(hidden) + hidden))))
    expected = out + F.leaky_relu(F.linear(x, neck.skip[0].weight, neck.skip[0].bias))
    assert_equal_but_for_rounding(neck(x), expected, neck)
    pair = [build_neck(mapper=dict(bias=True), low_rank=m) for m in ('off', 'auto')]
    assert {'mapper_in.weight', 'mapper_in.bias'} < pair[0].state_dict().keys()
    assert_same(pair, x)


# ----------------------------------------------------------------------------------
# places
def test_several_places_equal_necks_called_by_hand():
    model = Encoder()
    lm4ve.wrap(model, ['blocks.0', 'pair'], BLOCK, before='blocks.1', share_block=True)
    first, pair, second = model.llm_neck
    assert (
        first.block is pair.block is second.block
        and first.mapper_in is not pair.mapper_in
    )
    plain, x = Encoder(), batch()
    plain.load_state_dict(model.state_dict(), strict=False)
    h = plain.act(first(plain.blocks[0](plain.stem(x))))
    h = pair(plain.pair(plain.act(plain.blocks[1](second(h))))[0])
    expected = plain.head(plain.norm(plain.named(h)['features']).mean(dim=1))
    assert_equal_but_for_rounding(model(x), expected, model)
    lm4ve.check(model, x)


@pytest.mark.parametrize('share', [False, True])
@pytest.mark.parametrize(
    'places', [dict(after=['stem', 'pair']), dict(before='blocks.0')]
)
@pytest.mark.bitwise
def test_several_places_train_save_and_load(places, share, tmp_path):
    block = dict(arch=ARCH, trainable='lora', lora=dict(r=2))
    options = {
        'after': None,
        'lora': dict(r=2),
        'block': block,
        'share_block': share,
        **places,
    }
    model = wrapped(**options)
    assert not any(p.any() for n, p in model.named_parameters() if 'lora_B' in n)
    step(model)
    assert all(p.any() for n, p in model.named_parameters() if 'lora_B' in n)
    lm4ve.save_pretrained(model, tmp_path)
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path)
    assert torch.equal(loaded(batch()), model(batch()))
    assert torch.equal(copy.deepcopy(model)(batch()), model(batch()))
    with pytest.raises(CheckpointError, match='residual'):
        wrapped(**options, residual='inner').load_state_dict(
            model.state_dict(), strict=False
        )


@pytest.mark.parametrize('share', [False, True])
@pytest.mark.parametrize('by_registry', [False, True])
def test_a_block_given_as_a_module_is_shared_by_places_if_asked(share, by_registry):
    block = LLMBlock(arch=ARCH, trainable='all')
    places = ['blocks.0', 'pair']
    if by_registry:
        neck = dict(NECK, block=block)
        model = LLMBlockInsert(Encoder(), places, neck, share_block=share)
    else:
        model = lm4ve.wrap(Encoder(), places, block, share_block=share)
    first, second = model.llm_neck
    assert first.block is block
    assert (second.block is block) == share
    weights = second.block.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in block.state_dict().items())


def test_a_neck_is_that_of_one_place():
    with pytest.raises(UserError, match='1 necks for 2 places.*a config for all'):
        LLMBlockInsert(Encoder(), ['blocks.0', 'pair'], build_neck())


def test_any_module_may_be_a_neck():
    neck = nn.Linear(16, 16)
    neck.reader = 'of its own'
    model = LLMBlockInsert(Encoder(), 'blocks.0', neck)
    assert model(batch()).isfinite().all()


PLACES, NECK = (
    ['blocks.0', 'pair'],
    dict(type='LLMBlockNeck', in_channels=16, block=BLOCK),
)


@pytest.mark.parametrize('places', [PLACES[:1], PLACES])
def test_a_runner_initializes_necks_at_any_number_of_places(places):
    class Host(BaseModel):
        forward = None

        def __init__(self) -> None:
            super().__init__()
            self.encoder = BaseModule()
            self.encoder.stem = Encoder()
            LLMBlockInsert(self.encoder, [f'stem.{p}' for p in places], NECK)

    host = Host()
    host.init_weights()
    for neck in host.encoder.llm_neck:
        assert neck.mapper_in.weight.std() < 0.03 > neck.mapper_out.weight.std()


@pytest.mark.parametrize('share', [False, True])
def test_a_checkpoint_of_other_places_is_refused(share):
    def build(neck=NECK, share=share, **places) -> nn.Module:
        return LLMBlockInsert(Encoder(), neck=neck, share_block=share, **places)

    state = build(after=PLACES).state_dict()
    build(after=PLACES).load_state_dict(dict(state))
    build(after=PLACES, share=not share).load_state_dict(dict(state), strict=False)
    for other in (
        dict(after=PLACES[::-1]),
        dict(before=PLACES),
        dict(after=['act', 'pair']),
    ):
        with pytest.raises(CheckpointError, match='place'):
            build(**other).load_state_dict(dict(state), strict=False)
    if share:
        for other in (dict(NECK, block=dict(BLOCK, causal=True)), build_neck()):
            with pytest.raises(
                UserError, match='all necks name one block|must be .*dict'
            ):
                build([NECK, other], after=PLACES)


# ---------------------------------------------------------------------------------
# controls
def test_attention_block_is_plain_attention():
    block, x = AttentionBlock(32, num_heads=4), torch.randn(2, 5, 32)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    parts = (block.q_proj, block.k_proj, block.v_proj)
    theirs.in_proj_weight.data = torch.cat([p.weight for p in parts])
    theirs.in_proj_bias.data = torch.cat([p.bias for p in parts])
    theirs.out_proj = block.o_proj
    assert_equal_but_for_rounding(
        block(x, MASK), theirs(x, x, x, key_padding_mask=MASK)[0], block
    )
    assert_equal_but_for_rounding(
        block(x, None, slice(0, 1)), theirs(x, x, x)[0][:, :1], block
    )
    sized = MODELS.build(
        dict(type='lm4ve.AttentionBlock', embed_dims=32, parameters=20_000)
    )
    assert count_parameters(sized)[0] == pytest.approx(20_000, abs=4 * (4 * 32 + 3))
    assert LLMBlockNeck(C, sized)(tokens()).shape == (2, 5, C)


def test_permuted_weights_keep_their_values_and_nothing_else(checkpoints):
    path, x = checkpoints('llama-bias'), torch.randn(2, 5, 32)
    plain, mixed, again = (
        LLMBlock(path, pretrained=p, seed=s)
        for p, s in ((True, 0), *[('permuted', 3)] * 2)
    )
    for name, tensor in frozen_tensors(plain).items():
        other = frozen_tensors(mixed)[name]
        assert torch.equal(
            tensor.flatten().sort().values, other.flatten().sort().values
        )
        assert torch.equal(tensor, other) == (tensor.dim() == 1)
        assert torch.equal(other, frozen_tensors(again)[name])
    other = LLMBlock(path, pretrained='permuted', seed=4)
    assert not torch.allclose(other(x), mixed(x)) and not torch.allclose(
        plain(x), mixed(x)
    )
    for wrong in (plain, other):
        with pytest.raises(CheckpointError, match='permuted with seed 3'):
            wrong.load_state_dict(mixed.state_dict())


@pytest.mark.parametrize('training', [True, False])
def test_shuffled_tokens_change_what_positions_are(training):
    neck = build_neck(dict(rotary=True), shuffle_tokens=True, num_extra_tokens=1).train(
        training
    )
    torch.manual_seed(5)  # in evaluation the order of 5 tokens has the seed 5
    keys = torch.rand(2, 4) if training else torch.rand(4).expand(2, -1)
    order = torch.cat(
        [torch.zeros(2, 1, dtype=torch.long), 1 + keys.argsort(dim=1)], dim=1
    )
    x, out, rows = tokens(), torch.empty(2, 5, C), torch.arange(2)[:, None]
    mixed = neck.block(neck.mapper_in(x[rows, order]), MASK[rows, order])
    out[rows, order] = neck.mapper_out(mixed)
    torch.manual_seed(5)
    found = neck(x, padding_mask=MASK)
    assert_equal_but_for_rounding(found[~MASK], out[~MASK], neck)
    torch.manual_seed(5)
    some = neck(x, padding_mask=MASK, queries=torch.tensor([[2, 0], [4, 1]]))
    assert_equal_but_for_rounding(some[0, 0], found[0, 2], neck)


ORDERS = [
    dict(),
    dict(causal=True),
    dict(causal_suffix=1),
    dict(causal_suffix=2),
    dict(rotary=True),
]


@pytest.mark.parametrize('block', ORDERS, ids=str)
def test_tokens_are_shuffled_wherever_their_order_matters(block):
    x = tokens()
    plain = build_neck(block).eval()
    order = torch.tensor([4, 2, 0, 1, 3])
    matters = (plain(x[:, order]) - plain(x)[:, order]).abs().max() > 1e-3
    if not matters:
        with pytest.raises(UserError, match='no effect'):
            build_neck(block, shuffle_tokens=True)
        return
    shuffled = build_neck(block, shuffle_tokens=True).train()
    torch.manual_seed(0)
    effects = [(shuffled(x) - plain(x)).abs().max() for _ in range(4)]
    assert max(effects) > 1e-3


# ---------------------------------------------------------------------- LLM4Seg's forms
def test_llm4seg_is_causal_with_swapped_rotary_of_one_frequency(checkpoints):
    options = dict(layers=(1,), causal=True, final_norm=False)
    layer = copy.deepcopy(decoder_layers(random_model('llama'))[1])
    layer.self_attn.config._attn_implementation = 'sdpa'
    x, n = torch.randn(2, 6, 32), torch.arange(6).view(1, 6, 1).float()
    # As its code calls the layer: no mask, and the sine first.
    block = LLMBlock(checkpoints('llama'), rotary='llm4seg', **options)
    expected = layer(x, position_embeddings=(n.sin(), n.cos()))
    assert_equal_but_for_rounding(block(x), expected, block)


# ----------------------------------------------------------------- records and refusals
def control(heads: int) -> LLMBlockNeck:
    return LLMBlockNeck(
        C, AttentionBlock(32, heads), mapper=dict(depth=2), norm_cfg=None
    )


def averaging(extra: int) -> LLMBlockNeck:
    return build_neck(out_type='avg_featmap', num_extra_tokens=extra)


@pytest.mark.parametrize(
    'theirs, mine, text',
    [
        (control(4), control(8), 'num_heads=4'),
        (averaging(1), averaging(0), 'num_extra_tokens=1'),
        (build_neck(mapper=dict(depth=2)), control(4), 'AttentionBlock'),
    ],
)
def test_checkpoints_of_what_no_tensor_shows_are_refused(theirs, mine, text):
    with pytest.raises(CheckpointError, match=text):
        mine.load_state_dict(theirs.state_dict(), strict=False)


VARIANTS = [
    (dict(mapper=dict(bias=True)), {}),
    (dict(gate=True, residual='inner'), {}),
    (dict(out_type='cls_token'), {}),
    (dict(shuffle_tokens=True), dict(causal=True)),
    ({}, dict(causal_suffix=2)),
    ({}, dict(causal=dict(soft=0.2))),
    ({}, dict(rotary='llm4seg')),
]


@pytest.mark.parametrize('neck, block', VARIANTS)
def test_checkpoints_record_variants(neck, block):
    made = build_neck(block, **neck)
    state = made.state_dict()
    build_neck(block, **neck).load_state_dict(dict(state))
    kept = {k: v for k, v in neck.items() if k == 'residual'}
    plain = build_neck({k: v for k, v in block.items() if v is True}, **kept)
    with pytest.raises(CheckpointError, match='was made with'):
        plain.load_state_dict(dict(state), strict=False)
    with pytest.raises(CheckpointError, match='was made with'):
        made.load_state_dict(plain.state_dict(), strict=False)


REFUSED = [
    (dict(gate=True), {}, 'neck.residual with neck.gate'),
    (dict(branch=True, shuffle_tokens=True), dict(causal=True), 'does not go with'),
    (dict(branch=''), {}, 'neck.branch'),
    (dict(layout=''), {}, 'neck.layout'),
    (dict(mapper=dict(skip='ReLU')), {}, 'residual with neck.mapper.skip'),
    (dict(shuffle_tokens=True), {}, 'no effect'),
    ({}, dict(rotary='swapped'), "rotary='swapped'"),
    ({}, dict(pretrained='permuted'), 'needs weights'),
    ({}, dict(causal=True, causal_suffix=1), 'causal=True with block.causal_suffix=1'),
    ({}, dict(causal=dict(soft=2.0)), 'causal.soft'),
    ({}, dict(causal=dict(sift=0.2)), 'block.causal.sift is not a known field'),
]


def test_an_empty_dict_asks_for_a_part_with_its_defaults():
    with_branch = build_neck(branch=True)
    assert build_neck(branch={}).record() == with_branch.record()
    assert build_neck(branch={}).branch.fields == with_branch.branch.fields
    assert build_neck(branch=False).record() == build_neck().record()
    assert build_neck(mapper={}).fields.mapper is not None
    assert build_neck(lora={}).record()['lora'] is not None


@pytest.mark.parametrize('neck, block, text', REFUSED)
def test_fields_that_do_not_go_together_are_refused(neck, block, text):
    with pytest.raises(UserError, match=text):
        build_neck(block, **neck)


def test_vectors_are_refused_where_an_encoder_goes_on():
    neck = build_neck(out_type='avg_featmap')
    with pytest.raises(UserError, match='out_type'):
        LLMBlockInsert(Encoder(), 'blocks.0', neck)
    with pytest.raises(UserError, match='needs a place'):
        LLMBlockInsert(Encoder(), neck=neck)
    with pytest.raises(UserError, match='as a last layer'):
        LLMBlockInsert(nn.Sequential(nn.Linear(C, C)), '0', neck)
