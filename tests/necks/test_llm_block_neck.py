"""The neck against a plain recomputation."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

import lm4ve  # noqa: F401
from lm4ve.blocks import MLPBlock
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES

C, D = 12, 32
BLOCK = dict(type='LLMBlock', arch=FAMILIES['llama-gqa'])


def make(**kwargs) -> LLMBlockNeck:
    torch.manual_seed(0)
    neck = LLMBlockNeck(in_channels=C, **{'block': BLOCK, **kwargs})
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
    full = plain(neck, x, residual)
    expected = F.layer_norm(full, (C,), neck.norm.weight, neck.norm.bias, 1e-6)
    torch.testing.assert_close(neck(x), expected)
    first = make(residual=residual, out_type='cls_token')
    torch.testing.assert_close(first(x), expected[:, 0])
    mean = make(residual=residual, out_type='avg_featmap')
    torch.testing.assert_close(mean(x), neck.norm(full.mean(dim=1)))
    first = make(residual=residual, out_type='avg_featmap', norm_first=True)
    torch.testing.assert_close(first(x), expected.mean(dim=1))
    index = torch.tensor([[0, 3], [4, 1]])
    some = expected.gather(1, index[..., None].expand(-1, -1, C))
    torch.testing.assert_close(neck(x, queries=index), some)
    torch.testing.assert_close(neck(x, queries=slice(1, 4)), expected[:, 1:4])


@pytest.mark.parametrize(
    'cfg, norm',
    [
        (dict(type='BN1d'), torch.nn.BatchNorm1d(C)),
        (dict(type='GN', num_groups=3), torch.nn.GroupNorm(3, C)),
        (dict(type='LN2d', eps=0.1), lambda x: F.layer_norm(x.mT, (C,), eps=0.1).mT),
        (dict(type='RMSNorm'), lambda x: F.rms_norm(x.mT, (C,)).mT),
    ],
)
def test_norms_act_on_channels_in_every_layout(cfg, norm):
    x = torch.randn(2, C, 3, 4)
    expected = norm(make(norm_cfg=None)(x).flatten(2))
    torch.testing.assert_close(make(norm_cfg=cfg)(x).flatten(2), expected)
    torch.testing.assert_close(make(norm_cfg=cfg)(x.flatten(2).mT), expected.mT)
    with pytest.raises(UserError, match='neck.norm_cfg.type=.IN'):
        make(norm_cfg=dict(type='IN'))


def test_class_token_computes_one_query_only():
    neck = make(out_type='cls_token')
    sizes = []
    for part in (neck.block.layers[0].q_proj, neck.block.layers[0].mlp):
        part.register_forward_hook(lambda m, args, out: sizes.append(args[0].shape[1]))
    neck(torch.randn(2, 5, C))
    assert sizes == [1, 1]


def test_padding_tokens_do_not_change_the_others():
    neck = make()
    x, mask = torch.randn(2, 5, C), torch.zeros(2, 5, dtype=torch.bool)
    mask[:, 4] = True
    other = torch.cat([x[:, :4], torch.randn(2, 1, C)], dim=1)
    outs = (neck(features, padding_mask=mask)[:, :4] for features in (x, other))
    torch.testing.assert_close(*outs)


def test_mlp_block_is_gelu_and_layer_norm():
    neck = make(block=dict(type='MLPBlock', embed_dims=D), norm_cfg=None)
    assert isinstance(neck.block, MLPBlock)
    x = torch.randn(2, 5, C)
    hidden = F.layer_norm(F.gelu(F.linear(x, neck.mapper_in.weight)), (D,))
    torch.testing.assert_close(neck(x), F.linear(hidden, neck.mapper_out.weight))


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine'])
def test_every_scope_builds_it_by_its_plain_name(scope):
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS as HOST

    registry = HOST if scope == 'mmpretrain' else MODELS
    neck = registry.build(dict(type='LLMBlockNeck', in_channels=C, block=BLOCK))
    assert type(neck) is LLMBlockNeck
    neck.init_weights()
    assert 0.01 < neck.mapper_in.weight.std() < 0.03


@pytest.mark.parametrize('shape, options', [((2, C, 3, 4), {}), ((2, 5, C), 'avg_featmap')])
def test_queries_need_tokens_and_raw_output(shape, options):
    neck = make(out_type=options or 'raw')
    with pytest.raises(UserError, match='queries'):
        neck(torch.randn(shape), queries=slice(0, 1))


@pytest.mark.parametrize('field', ['residual', 'out_type', 'low_rank'])
def test_wrong_words_list_the_right_ones(field):
    with pytest.raises(UserError, match=f'neck.{field}=.wrong. must be one of'):
        make(**{field: 'wrong'})
