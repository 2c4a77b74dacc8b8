"""The neck around any feature layout, against a plain recomputation."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

import lm4ve  # noqa: F401
from lm4ve.blocks import MLPBlock
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck

C, D = 12, 32
ARCH = dict(
    model_type='llama',
    hidden_size=D,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_hidden_layers=2,
    intermediate_size=48,
    vocab_size=8,
)


def make(**kwargs) -> LLMBlockNeck:
    torch.manual_seed(0)
    kwargs.setdefault('block', dict(type='LLMBlock', arch=ARCH))
    neck = LLMBlockNeck(in_channels=C, **kwargs)
    neck.init_weights()
    # Mappers of ordinary size, so that a missing residual shows.
    for mapper in (neck.mapper_in, neck.mapper_out):
        torch.nn.init.normal_(mapper.weight, std=0.3)
    return neck


def plain(neck, tokens, residual='none', mask=None):
    """Mapper, block, mapper in plain functional code; no norm."""
    hidden = F.linear(tokens, neck.mapper_in.weight)
    out = neck.block(hidden, padding_mask=mask)
    if residual in ('inner', 'both'):
        out = out + hidden
    out = F.linear(out, neck.mapper_out.weight)
    return out + tokens if residual in ('outer', 'both') else out


@pytest.mark.parametrize('residual', ['none', 'inner', 'outer', 'both'])
def test_tokens_go_through_mappers_block_residuals_and_norm(residual):
    neck = make(residual=residual)
    x = torch.randn(2, 5, C)
    expected = F.layer_norm(plain(neck, x, residual), (C,), neck.norm.weight, neck.norm.bias, 1e-6)
    torch.testing.assert_close(neck(x), expected)


@pytest.mark.parametrize('residual', ['none', 'inner', 'outer', 'both'])
def test_class_token_is_the_full_outputs_first_token(residual):
    full = make(residual=residual)
    short = make(residual=residual, out_type='cls_token')
    x = torch.randn(2, 5, C)
    torch.testing.assert_close(short(x), full(x)[:, 0])


def test_class_token_computes_one_query_only():
    neck = make(out_type='cls_token')
    seen = []
    neck.block.layers[0].q_proj.register_forward_hook(
        lambda m, args, out: seen.append(args[0].shape[1])
    )
    neck.block.layers[0].mlp.register_forward_hook(
        lambda m, args, out: seen.append(args[0].shape[1])
    )
    neck(torch.randn(2, 5, C))
    assert seen == [1, 1]


def test_mean_comes_before_the_norm():
    neck = make(out_type='avg_featmap')
    x = torch.randn(2, 5, C)
    expected = neck.norm(plain(neck, x).mean(dim=1))
    torch.testing.assert_close(neck(x), expected)


@pytest.mark.parametrize('shape', [(2, C, 3, 4), (2, C, 2, 3, 4)], ids=['NCHW', 'NCTHW'])
def test_maps_keep_their_layout(shape):
    neck = make()
    x = torch.randn(shape)
    out = neck(x)
    assert out.shape == x.shape
    tokens = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(out.flatten(2).transpose(1, 2), neck(tokens))


@pytest.mark.parametrize('residual', ['none', 'both'])
def test_queries_pick_tokens_per_sample(residual):
    neck = make(residual=residual)
    x = torch.randn(2, 5, C)
    index = torch.tensor([[0, 3], [4, 1]])
    expected = neck(x).gather(1, index[..., None].expand(-1, -1, C))
    torch.testing.assert_close(neck(x, queries=index), expected)
    torch.testing.assert_close(neck(x, queries=slice(1, 4)), neck(x)[:, 1:4])


def test_padding_tokens_do_not_change_the_others():
    neck = make()
    x = torch.randn(2, 5, C)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[:, 4] = True
    other = x.clone()
    other[:, 4] = torch.randn(2, C)
    torch.testing.assert_close(
        neck(x, padding_mask=mask)[:, :4], neck(other, padding_mask=mask)[:, :4]
    )


def test_mlp_block_is_gelu_and_layer_norm():
    neck = make(block=dict(type='MLPBlock', embed_dims=D), norm_cfg=None)
    assert isinstance(neck.block, MLPBlock)
    x = torch.randn(2, 5, C)
    hidden = F.gelu(F.linear(x, neck.mapper_in.weight))
    hidden = F.layer_norm(hidden, (D,))
    torch.testing.assert_close(neck(x), F.linear(hidden, neck.mapper_out.weight))


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine'])
def test_every_scope_builds_it_by_its_plain_name(scope):
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS as HOST

    registry = HOST if scope == 'mmpretrain' else MODELS
    neck = registry.build(
        dict(type='LLMBlockNeck', in_channels=C, block=dict(type='LLMBlock', arch=ARCH))
    )
    assert type(neck) is LLMBlockNeck


@pytest.mark.parametrize(
    'x', [torch.randn(2, C), torch.randn(2, C, 1, 1, 1, 1)], ids=['2 dims', '6 dims']
)
def test_unknown_layouts_are_refused_with_what_is_taken(x):
    with pytest.raises(UserError, match=r'\[B, N, C\].*out_type=.raw'):
        make()(x)


def test_a_map_has_no_class_token():
    with pytest.raises(UserError, match='cls_token.*map'):
        make(out_type='cls_token')(torch.randn(2, C, 3, 4))


def test_queries_need_tokens_and_raw_output():
    with pytest.raises(UserError, match='queries'):
        make()(torch.randn(2, C, 3, 4), queries=slice(0, 1))
    with pytest.raises(UserError, match='queries'):
        make(out_type='avg_featmap')(torch.randn(2, 5, C), queries=slice(0, 1))


@pytest.mark.parametrize('field', ['residual', 'out_type', 'low_rank'])
def test_wrong_words_list_the_right_ones(field):
    with pytest.raises(UserError, match=f'neck.{field}=.wrong. must be one of'):
        make(**{field: 'wrong'})


def test_mapper_weights_are_initialised_small():
    neck = LLMBlockNeck(in_channels=C, block=dict(type='LLMBlock', arch=ARCH))
    neck.init_weights()
    assert 0.01 < neck.mapper_in.weight.std() < 0.03
