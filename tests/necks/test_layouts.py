"""Layouts, class tokens and several maps: named, honored, or refused with the field."""

import pytest
import torch

from lm4ve.errors import UserError
from tests.necks.test_llm_block_neck import C, make

REFUSED = [
    # The advice names the layout before the number of channels.
    ((2, C, 5), {}, f"layout='BCN'.*in_channels={5}"),
    ((2, 3, 4, C), {}, f"layout='BHWC'.*in_channels={3}"),
    ((2, 2, 3, 4, C), {}, f"layout='BTHWC'.*in_channels={2}"),
    ((2, 5, 16), {}, r'in_channels=12.*gives .*16.*Fix: set .*in_channels=16'),
    ((2, C), {}, "BNC.*out_type='raw'"),
    ((2, C, 1, 1, 1, 1), {}, "BNC.*out_type='raw'"),
    ((2, 5, C), dict(layout='BHWC'), "layout='BHWC'.*gives"),
    ((2, C, 3, 4), dict(out_type='cls_token'), 'cls_token.*a map'),
    ((2, C, 3, 4), dict(out_type='avg_featmap', num_extra_tokens=1), 'tokens=1.*a map'),
    *(((2, C, 5), dict(layout=n), 'neck.layout=.*BCN') for n in ('NC', 'BNN', 'BHW', 'B-C')),
]


@pytest.mark.parametrize('shape, options, message', REFUSED)
def test_other_features_are_refused_by_field(shape, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)(torch.randn(shape))


@pytest.mark.parametrize('index', [-1, 0, 1])
def test_maps_come_back_with_one_replaced(index):
    maps = [torch.randn(2, C, s, s) for s in (4, 2, 1)]
    expected = make()(maps[index])
    (out,) = make(index=index)(maps)
    torch.testing.assert_close(out, expected)
    out = make(keep_others=True, index=index)(tuple(maps))
    maps[index] = expected
    assert isinstance(out, tuple)
    for ours, theirs in zip(out, maps, strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(UserError, match='neck.index of 3 feature maps=3'):
        make(index=3)(maps)
