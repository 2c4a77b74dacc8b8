"""Layouts, class tokens and several maps: named, honored, or refused with the field."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lm4ve  # noqa: F401
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from tests.necks.encoder import ARCH

C = 12


def make(**kwargs) -> LLMBlockNeck:
    torch.manual_seed(0)
    neck = LLMBlockNeck(in_channels=C, block=dict(type='LLMBlock', arch=ARCH), **kwargs)
    for mapper in (neck.mapper_in, neck.mapper_out):
        nn.init.normal_(mapper.weight, std=0.3)
    return neck


#: Layout -> how to bring it to [B, N, C].
LAYOUTS = {
    'BCN': lambda x: x.transpose(1, 2),
    'NBC': lambda x: x.transpose(0, 1),
    'BHWC': lambda x: x.flatten(1, 2),
    'BTHWC': lambda x: x.flatten(1, 3),
    'BTCHW': lambda x: x.transpose(2, 4).flatten(1, 3),
    'HWBC': lambda x: x.permute(2, 0, 1, 3).flatten(1, 2),
}
SIZES = dict(B=2, N=5, C=C, H=3, W=4, T=2)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_layout_is_taken_and_given_back(layout):
    neck, plain = make(layout=layout), make()
    x = torch.randn([SIZES[d] for d in layout])
    out = neck(x)
    assert out.shape == x.shape
    if layout == 'BTCHW':  # the other way round, tokens come in another order: T, H, W
        x, out = (i.permute(0, 1, 3, 4, 2) for i in (x, out))
        to_tokens = LAYOUTS['BTHWC']
    else:
        to_tokens = LAYOUTS[layout]
    torch.testing.assert_close(to_tokens(out), plain(to_tokens(x)))


@pytest.mark.parametrize('layout', ['BCN', 'NBC'])
def test_a_sequence_in_any_layout_has_a_class_token_and_queries(layout):
    x = torch.randn([SIZES[d] for d in layout])
    tokens = LAYOUTS[layout](x)
    torch.testing.assert_close(
        make(layout=layout, out_type='cls_token')(x), make(out_type='cls_token')(tokens)
    )
    queries = torch.tensor([[0, 3], [4, 1]])
    torch.testing.assert_close(
        LAYOUTS[layout](make(layout=layout)(x, queries=queries)), make()(tokens, queries=queries)
    )


@pytest.mark.parametrize(
    'shape, layout', [((2, C, 5), 'BCN'), ((2, 3, 4, C), 'BHWC'), ((2, 2, 3, 4, C), 'BTHWC')]
)
def test_channels_in_another_dimension_are_named_with_the_layout(shape, layout):
    """The advice was to make the tokens channels, which trains and is wrong."""
    with pytest.raises(UserError) as e:
        make()(torch.randn(shape))
    text = str(e.value)
    assert f"neck.layout='{layout}'" in text
    assert text.index('layout=') < text.index(f'in_channels={shape[-1 if len(shape) == 3 else 1]}')


def test_a_width_that_is_nowhere_names_the_field():
    with pytest.raises(UserError, match=r'in_channels=12.*gives .*16.*Fix: set .*in_channels=16'):
        make()(torch.randn(2, 5, 16))


@pytest.mark.parametrize('layout', ['NC', 'BNN', 'BHW', 'B-C'])
def test_words_that_are_no_layout_are_refused(layout):
    with pytest.raises(UserError, match='neck.layout=.*BCN'):
        make(layout=layout)


def test_another_number_of_dimensions_is_refused():
    with pytest.raises(UserError, match="neck.layout='BHWC'.*gives"):
        make(layout='BHWC')(torch.randn(2, 5, C))


# ----------------------------------------------------------------------- class tokens
@pytest.mark.parametrize('low_rank', ['off', 'fold', 'auto'])
def test_the_mean_leaves_extra_tokens_out_and_attends_to_them(low_rank):
    neck = make(out_type='avg_featmap', num_extra_tokens=2, low_rank=low_rank)
    x = torch.randn(2, 7, C)
    all_tokens = make(norm_cfg=None)(x)
    expected = F.layer_norm(all_tokens[:, 2:].mean(1), (C,), eps=1e-6)
    torch.testing.assert_close(neck(x), expected)
    with neck.observe():
        torch.testing.assert_close(neck(x), expected)
    other = torch.cat([torch.randn(2, 1, C), x[:, 1:]], dim=1)
    assert not torch.allclose(neck(other), neck(x))


def test_the_mean_leaves_extra_tokens_and_padding_out():
    neck = make(out_type='avg_featmap', num_extra_tokens=1)
    x = torch.randn(1, 6, C)
    padding = torch.tensor([[False] * 4 + [True] * 2])
    torch.testing.assert_close(neck(x, padding_mask=padding), neck(x[:, :4]))


def test_a_map_has_no_extra_tokens():
    with pytest.raises(UserError, match='num_extra_tokens=1.*a map'):
        make(out_type='avg_featmap', num_extra_tokens=1)(torch.randn(2, C, 3, 4))


# ----------------------------------------------------------------------- several maps
@pytest.mark.parametrize('index', [-1, 0, 1])
def test_all_maps_come_back_with_one_replaced(index):
    neck = make(keep_others=True, index=index)
    maps = [torch.randn(2, C, s, s) for s in (4, 2, 1)]
    out = neck(tuple(maps))
    assert isinstance(out, tuple) and len(out) == 3
    maps[index] = neck(maps[index])
    for ours, expected in zip(out, maps, strict=True):
        torch.testing.assert_close(ours, expected)


def test_one_map_comes_back_unless_asked():
    neck = make(index=0)
    maps = tuple(torch.randn(2, C, s, s) for s in (4, 2))
    (out,) = neck(maps)
    torch.testing.assert_close(out, neck(maps[0]))


def test_an_index_beyond_the_maps_is_refused():
    with pytest.raises(UserError, match='neck.index of 2 feature maps=2'):
        make(index=2)((torch.randn(2, 5, C), torch.randn(2, 5, C)))
