"""A training step of some tokens, against the step of all of them."""

import pytest
import torch

from lm4ve.errors import UserError
from tests.necks.test_llm_block_neck import C, make, plain


def draws(neck, x, mask=None, seed=3):
    """The indices that the next forward pass after this seed draws."""
    torch.manual_seed(seed)
    return neck.train_only.queries.draw(x, mask, neck.num_extra_tokens, 0.0)


def test_one_token_of_each_stretch_is_drawn_and_each_token_equally_often():
    neck = make(train_queries=0.3, out_type='avg_featmap')
    torch.manual_seed(0)
    drawn = neck.train_only.queries.draw(torch.zeros(6000, 10, C), None, 0, 0.0)
    assert drawn.shape == (6000, 3)
    for i, stretch in enumerate(([0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9])):
        assert set(drawn[:, i].tolist()) == set(stretch)
    share = torch.bincount(drawn.flatten(), minlength=10) / 6000
    torch.testing.assert_close(share, torch.full((10,), 0.3), atol=0.03, rtol=0)


@pytest.mark.parametrize('low_rank', ['auto', 'off'])
def test_drawn_tokens_have_the_values_that_they_have_among_all(low_rank):
    neck = make(train_queries=0.4, norm_cfg=None, num_extra_tokens=1, low_rank=low_rank)
    x = torch.randn(2, 6, C)
    drawn = draws(neck, x)
    torch.manual_seed(3)
    out = neck(x)
    assert out.shape == (2, 1 + 2, C) and (drawn > 0).all()
    places = torch.cat([torch.zeros(2, 1, dtype=torch.int64), drawn], dim=1)
    expected = plain(neck, x).gather(1, places[..., None].expand(-1, -1, C))
    torch.testing.assert_close(out, expected)
    neck.eval()
    torch.testing.assert_close(neck(x), plain(neck, x))


def test_the_mean_is_that_of_drawn_tokens_and_padding_is_never_drawn():
    neck = make(train_queries=0.5, norm_cfg=None, out_type='avg_featmap')
    x = torch.randn(3, 6, C)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 2:] = mask[1, :5] = True
    drawn = draws(neck, x, mask)
    assert not mask.gather(1, drawn).any()
    torch.manual_seed(3)
    expected = plain(neck, x, mask=mask).gather(1, drawn[..., None].expand(-1, -1, C)).mean(1)
    torch.testing.assert_close(neck(x, padding_mask=mask), expected)


def test_the_part_grows_with_the_progress_of_training():
    neck = make(train_queries=dict(fraction=(0.25, 1.0)))
    x = torch.randn(2, 8, C)
    with pytest.raises(UserError, match=r'NeckProgressHook.*set_progress'):
        neck(x)
    for progress, tokens in ((0.0, 2), (0.5, 5), (1.0, 8)):
        neck.set_progress(progress)
        assert neck(x).shape[1] == tokens


def test_observers_see_all_tokens():
    neck = make(train_queries=0.25, norm_cfg=None)
    x = torch.randn(1, 8, C)
    with neck.observe():
        torch.testing.assert_close(neck(x), plain(neck, x))


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(train_queries=0), 'fraction=0 must be'),
        (dict(train_queries=True), 'fraction=True must be'),
        (dict(train_queries=dict(fraction=(0.1, 2))), 'fraction=2 must be'),
        (dict(train_queries=dict(fraction=(0.1, 0.2, 0.3))), 'number of fractions=3'),
        (dict(train_queries=dict(part=0.1)), 'part'),
        (dict(train_queries='some'), 'must be of type dict'),
        (dict(train_queries=0.1, out_type='cls_token'), 'neck.out_type with neck.train_queries'),
    ],
)
def test_fields_without_sense_are_refused(fields, message):
    with pytest.raises((UserError, TypeError), match=message):
        make(**fields)


def test_hosts_that_need_certain_tokens_are_refused():
    neck = make(train_queries=0.5)
    mask = torch.zeros(1, 4, dtype=torch.bool)
    for x, options in (
        (torch.randn(1, 4, C), dict(queries=slice(0, 1))),
        (torch.randn(1, C, 2, 2), {}),
        (torch.randn(1, 4, C), dict(padding_mask=mask)),
    ):
        with pytest.raises(UserError, match="fewer tokens back.*out_type='avg_featmap'"):
            neck(x, **options)
