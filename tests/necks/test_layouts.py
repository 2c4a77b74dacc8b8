"""The neck against a plain recomputation; layouts, class tokens and several maps."""

import random
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from lm4ve.blocks import LLMBlock, MLPBlock
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.layouts import mean_of_tokens
from tests.helpers.families import FAMILIES
from tests.helpers.necks.tiny import BLOCK, C, D, make

NORMS = [
    (dict(type='BN1d'), torch.nn.BatchNorm1d(C)),
    (dict(type='GN', num_groups=3), torch.nn.GroupNorm(3, C)),
    (dict(type='LN2d', eps=0.1), lambda x: F.layer_norm(x.mT, (C,), eps=0.1).mT),
    (dict(type='RMSNorm'), lambda x: F.rms_norm(x.mT, (C,)).mT),
]


@pytest.mark.parametrize('cfg, norm', NORMS)
def test_norms_act_on_channels_in_every_layout(cfg, norm):
    x = torch.randn(2, C, 3, 4)
    expected = norm(make(norm_cfg=None)(x).flatten(2))
    torch.testing.assert_close(make(norm_cfg=cfg)(x).flatten(2), expected)
    tokens = x.flatten(2).mT
    neck = make(norm_cfg=cfg, layout='BNC')
    torch.testing.assert_close(neck(tokens), expected.mT)


@pytest.mark.parametrize('cfg', [cfg for cfg, _ in NORMS[:2]])
def test_a_norm_over_tokens_takes_no_padding(cfg):
    padding = torch.tensor([[False, False, True]])
    with pytest.raises(
        UserError, match='neck.norm_cfg: .*Norm.* would count padding in'
    ):
        make(norm_cfg=cfg)(torch.randn(1, 3, C), padding)
    make(norm_cfg=cfg, out_type='avg_featmap').eval()(torch.randn(1, 3, C), padding)


class Wrapper(torch.nn.Module):
    """Stands around a module, as wrappers of peft, FSDP and ``torch.compile`` do."""

    def __init__(self, module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


@pytest.mark.parametrize('cfg', [dict(type='LN'), *(cfg for cfg, _ in NORMS)])
def test_a_wrapped_norm_acts_on_the_same_channels(cfg):
    x = torch.randn(2, C, C)  # as many tokens as channels
    padding = torch.zeros(2, C, dtype=torch.bool)
    neck = make(norm_cfg=cfg, layout='BNC')
    wrapped = make(norm_cfg=cfg, layout='BNC')
    wrapped.norm = Wrapper(wrapped.norm)
    torch.testing.assert_close(wrapped(x), neck(x))
    if cfg['type'] in ('BN1d', 'GN'):
        with pytest.raises(UserError, match='would count padding in'):
            wrapped(x, padding)
    else:
        wrapped(x, padding)


ASSIGNED = [torch.nn.BatchNorm1d(C), torch.nn.GroupNorm(3, C), torch.nn.LayerNorm(C)]


@pytest.mark.parametrize('cfg', [None, dict(type='LN'), dict(type='BN')])
@pytest.mark.parametrize('norm', ASSIGNED)
def test_an_assigned_norm_of_torch_acts_on_channels(norm, cfg):
    x = torch.randn(2, C, C)
    tokens = make(norm_cfg=None, layout='BNC')(x)
    neck = make(norm_cfg=cfg, layout='BNC')
    neck.norm = norm
    if isinstance(norm, torch.nn.LayerNorm):
        expected = norm(tokens)
    else:
        expected = norm(tokens.mT).mT
    torch.testing.assert_close(neck(x), expected)


def test_an_assigned_norm_of_another_class_reads_channels_last():
    x = torch.randn(2, C, C)
    norm = Wrapper(torch.nn.LayerNorm(C))
    neck = make(norm_cfg=None, layout='BNC')
    tokens = neck(x)
    neck.norm = norm
    torch.testing.assert_close(neck(x), norm(tokens))


def test_class_token_computes_one_query_only_in_the_last_layer():
    neck = make(out_type='cls_token', block=dict(BLOCK, layers=(0, 1)))
    sizes = []
    for layer in neck.block.layers:
        for part in (layer.q_proj, layer.mlp):
            part.register_forward_hook(
                lambda m, args, out: sizes.append(args[0].shape[1])
            )
    neck(torch.randn(2, 5, C))
    assert sizes == [5, 5, 1, 1]


def test_mlp_block_is_gelu_and_layer_norm():
    neck = make(block=dict(type='MLPBlock', embed_dims=D), norm_cfg=None)
    assert isinstance(neck.block, MLPBlock)
    x = torch.randn(2, 5, C)
    hidden = F.layer_norm(F.gelu(F.linear(x, neck.mapper_in.weight)), (D,))
    expected = F.linear(hidden, neck.mapper_out.weight)
    torch.testing.assert_close(neck(x), expected)
    torch.testing.assert_close(neck(x, queries=slice(0, 1)), expected[:, :1])


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine'])
def test_every_scope_builds_it_by_its_plain_name(scope):
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS as HOST

    registry = HOST if scope == 'mmpretrain' else MODELS
    neck = registry.build(dict(type='LLMBlockNeck', in_channels=C, block=BLOCK))
    assert type(neck) is LLMBlockNeck
    neck.init_weights()
    assert 0.01 < neck.mapper_in.weight.std() < 0.03


@pytest.mark.parametrize(
    'shape, out_type', [((2, C, 3, 4), 'raw'), ((2, 5, C), 'avg_featmap')]
)
def test_queries_need_tokens_and_raw_output(shape, out_type):
    with pytest.raises(UserError, match='queries'):
        make(out_type=out_type)(torch.randn(shape), queries=slice(0, 1))


WORDS = ('residual', 'out_type', 'low_rank')
REFUSED = [
    # The advice names the layout before the number of channels.
    ((2, C, 5), {}, f"layout='BCN'.*in_channels={5}"),
    ((2, 3, 4, C), {}, f"layout='BHWC'.*in_channels={3}"),
    ((2, 5, 16), {}, r'in_channels=12.*gives .*16.*Fix: set .*in_channels=16'),
    ((2, C), {}, "BNC.*out_type='raw'"),
    ((2, 5, C), dict(layout='BHWC'), "layout='BHWC'.*gives"),
    ((2, C, 3, 4), dict(out_type='cls_token'), 'cls_token.*a map'),
    ((2, C, 3, 4), dict(out_type='avg_featmap', num_extra_tokens=1), 'tokens=1.*a map'),
    (
        (2, 5, C),
        dict(out_type='avg_featmap', num_extra_tokens=-1),
        'num_extra_tokens=-1 must be',
    ),
    ((2, 5, C), dict(num_extra_tokens=1.5), 'num_extra_tokens=1.5 must be'),
    ((2, 5, C), dict(num_extra_tokens=6), 'num_extra_tokens=6.* gives 5 tokens'),
    (
        (2, 5, C),
        dict(out_type='cls_token', num_extra_tokens=6),
        'num_extra_tokens=6.* gives 5',
    ),
    (
        (2, 5, C),
        dict(out_type='avg_featmap', num_extra_tokens=5),
        'num_extra_tokens=5.* gives 5',
    ),
    *(
        ((2, C, 5), dict(layout=n), 'neck.layout=.*BCN')
        for n in ('NC', 'BNN', 'BHW', 'B-C')
    ),
    ((2, 5, C), dict(norm_cfg=dict(type='IN')), 'neck.norm_cfg.type=.IN'),
    *(((2, 5, C), {f: 'wrong'}, f'neck.{f}=.wrong. must be one of') for f in WORDS),
]


@pytest.mark.parametrize('shape, options, message', REFUSED)
def test_wrong_fields_and_other_features_are_refused_by_field(shape, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)(torch.randn(shape))


def test_a_class_token_may_be_all_there_is():
    tokens = torch.randn(2, 1, C)
    neck = make(out_type='cls_token', num_extra_tokens=1)
    torch.testing.assert_close(neck(tokens), make()(tokens)[:, 0])


@pytest.mark.parametrize('index', [-1, 0, 1])
def test_maps_come_back_with_one_replaced(index):
    maps = [torch.randn(2, C, s, s) for s in (4, 2, 1)]
    expected = make()(maps[index])
    (out,) = make(index=index)(maps)
    torch.testing.assert_close(out, expected)
    out = make(keep_others=True, index=index)(tuple(maps))
    maps[index] = expected
    assert isinstance(out, tuple)
    torch.testing.assert_close(out, tuple(maps))
    with pytest.raises(UserError, match='neck.index of 3 feature maps=3'):
        make(index=3)(maps)


def test_a_mean_of_many_tokens_stays_in_the_range_of_16_bits():
    x, padding = torch.full((1, 300, 1), 250.0), torch.zeros(1, 300, dtype=torch.bool)
    assert mean_of_tokens(x.half(), padding, 0) == 250


WIDTH, FLAG = 8, (False, True)
BLOCKS = dict(
    variant='llama-gqa mistral gemma2 gpt_neo llama4_text modernbert qwen3 t5'.split(),
    layers=((0,), (1,), (0, 1)),
    **dict(
        causal=FLAG,
        window=FLAG,
        rotary=FLAG,
        final_norm=FLAG,
        trainable=('none', 'all'),
    ),
)
NECKS = dict(
    residual=('none', 'inner', 'outer', 'both'),
    out_type=('raw', 'cls_token', 'avg_featmap'),
    low_rank=('auto', 'fold', 'absorb', 'off'),
    norm_cfg=(None, dict(type='LN', eps=1e-3)),
    layout=(None, None, *'BNC NBC BCN BCHW BHWC BCTHW BTHWC BTCHW HWBC'.split()),
    **dict(num_extra_tokens=(0, 1), with_cp=FLAG, keep_others=FLAG, index=(0, -1)),
    norm_first=FLAG,
)
QUERIES = (
    None,
    None,
    slice(1, 4),
    slice(None, None, 2),
    torch.tensor([[0, 5], [3, 3]]),
)


@cache
def block_of(**options) -> LLMBlock:
    arch = dict(FAMILIES[options.pop('variant')], initializer_range=0.3)
    return LLMBlock(arch=arch, **options)


def chosen(x, queries):
    if isinstance(queries, torch.Tensor):
        return torch.stack([tokens[i] for tokens, i in zip(x, queries, strict=True)])
    return x if queries is None else x[:, queries]


def by_parts(neck, x, padding, queries):
    """The neck's tokens, ``[B, N, C]`` or ``[B, C]``, with every token computed."""
    hidden = neck.mapper_in(x)
    out = neck.block(hidden, padding) + hidden * (neck.residual in ('inner', 'both'))
    out = neck.mapper_out(out) + x * (neck.residual in ('outer', 'both'))
    norm = (lambda x: x) if neck.norm is None else neck.norm
    if neck.out_type == 'avg_featmap':
        out = norm(out) if neck.norm_first else out
        kept = (
            torch.ones(2, 6, 1) if padding is None else 1.0 - padding[..., None].float()
        )
        kept[:, : neck.num_extra_tokens] = 0
        out = (out * kept).sum(1) / kept.sum(1)
    out = out if neck.norm_first and neck.out_type == 'avg_featmap' else norm(out)
    if neck.out_type == 'cls_token':
        return out[:, 0]
    return chosen(out, queries)


@pytest.mark.parametrize('seed', range(300))
def test_a_combination_equals_its_parts_or_is_refused(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    block = {k: draw.choice(v) for k, v in BLOCKS.items()}
    options = {k: draw.choice(v) for k, v in NECKS.items()}
    x, queries, padding = (
        torch.randn(2, 6, WIDTH).requires_grad_(),
        draw.choice(QUERIES),
        None,
    )
    if draw.random() < 0.5:
        padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    letters, sizes = options['layout'] or 'BNC', dict(N=6, T=1, H=2, W=3)
    dims = ['B', *(n for n in letters if n not in 'BC'), 'C']
    feats = x.view(2, *(sizes[n] for n in dims[1:-1]), WIDTH)
    feats = feats.permute([dims.index(n) for n in letters])
    try:
        neck = LLMBlockNeck(WIDTH, block_of(**block), **options)
        out = neck([feats] if options['keep_others'] else feats, padding, queries)
    except UserError:
        return
    out = out[0] if options['keep_others'] else out
    if out.dim() > 2:
        out = out.permute([letters.index(n) for n in dims]).flatten(1, -2)
    # What comes of padding means nothing.
    ignored = torch.zeros(2, 6, 1).bool() if padding is None else padding[..., None]
    ignored = (
        chosen(ignored, queries)[:, : out.shape[1]]
        if out.dim() > 2
        else torch.tensor(False)
    )
    direction, found = torch.randn(out.shape).masked_fill(ignored, 0), []
    for result in (out, by_parts(neck, x, padding, queries)):
        summed = (result * direction).sum()
        grads = torch.autograd.grad(summed, [x, *neck.parameters()], allow_unused=True)
        found.append([result * (direction != 0), *grads])
    for a, b in zip(*found, strict=True):
        a, b = (torch.zeros(1) if t is None else t for t in (a, b))  # a bias of keys
        assert (a - b).norm() <= 1e-4 * b.norm().clamp_min(1)


# ------------------------------------------------------------- mean before the mapper
@pytest.mark.parametrize('residual', ['none', 'inner'])
@pytest.mark.parametrize('extra', [0, 2])
@pytest.mark.parametrize('is_padded', [False, True])
@pytest.mark.parametrize('low_rank', ['off', 'fold'])
def test_the_mean_before_the_mapper_is_that_of_its_outputs(
    residual, extra, is_padded, low_rank
):
    torch.manual_seed(0)
    block = dict(type='LLMBlock', arch=FAMILIES['llama'])
    neck = LLMBlockNeck(
        C,
        block,
        residual=residual,
        out_type='avg_featmap',
        num_extra_tokens=extra,
        low_rank=low_rank,
    ).double()
    torch.nn.init.normal_(neck.mapper_out.weight)
    x = torch.randn(2, 7, C, dtype=torch.float64)
    padding_mask = None
    kept = torch.ones(2, 7, dtype=torch.bool)
    if is_padded:
        padding_mask = torch.zeros(2, 7, dtype=torch.bool)
        padding_mask[0, 5:] = True
        kept = ~padding_mask

    hidden = neck.mapper_in(x)
    out = neck.block(hidden, padding_mask=padding_mask)
    if residual == 'inner':
        out = out + hidden
    mapped = neck.mapper_out(out)
    expected = []
    for sample, own in zip(mapped[:, extra:], kept[:, extra:], strict=True):
        expected.append(sample[own].mean(0))
    # The block keeps some of its steps, such as softmax, in fp32.
    torch.testing.assert_close(
        neck(x, padding_mask), neck.norm(torch.stack(expected)), rtol=1e-5, atol=1e-5
    )


def test_the_second_mapper_computes_one_token_where_that_is_exact():
    block = dict(type='LLMBlock', arch=FAMILIES['llama'])
    x = torch.randn(2, 7, C)
    operations = {}
    for name, options in dict(
        plain={},
        norm_first=dict(norm_first=True),
        outer=dict(residual='outer'),
        activated=dict(mapper=dict(act='GELU')),
        bias=dict(mapper=dict(bias=True)),
    ).items():
        neck = LLMBlockNeck(C, block, out_type='avg_featmap', low_rank='off', **options)
        with FlopCounterMode(display=False) as counter:
            neck(x)
        operations[name] = counter.get_total_flops()
    saved = 2 * (2 * 7 - 2) * C * D
    assert operations['plain'] == operations['bias']
    for name in ('norm_first', 'outer', 'activated'):
        assert operations[name] == operations['plain'] + saved


def test_a_hook_of_the_second_mapper_sees_every_token():
    block = dict(type='LLMBlock', arch=FAMILIES['llama'])
    neck = LLMBlockNeck(C, block, out_type='avg_featmap')
    x = torch.randn(2, 7, C)
    plain = neck(x)
    seen = []
    neck.mapper_out.register_forward_hook(lambda module, args, out: seen.append(out))
    torch.testing.assert_close(neck(x), plain)
    assert seen[0].shape == (2, 7, C)
