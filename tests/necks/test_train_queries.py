"""A training step of some tokens, against the step of all of them."""

import itertools

import pytest
import torch
from torch import nn

from lm4ve.errors import UserError
from lm4ve.necks.train_queries import TrainQueries
from tests.necks.test_llm_block_neck import C, D, make, plain


class Through(nn.Module):
    """A block that does nothing, so that mappers alone decide."""

    embed_dims = D

    def forward(self, x, padding_mask=None, queries=None):
        return x if queries is None else x.gather(1, queries[..., None].expand(-1, -1, D))


def draws(neck, x, mask=None, seed=3):
    """The indices that the next forward pass after this seed draws."""
    torch.manual_seed(seed)
    return neck.train_queries.draw(x, mask, neck.num_extra_tokens, 0.0)


def every_draw(monkeypatch, extra):
    """Let two of four tokens be drawn, each pair of one from each half in turn."""
    for first, second in itertools.product((0, 1), (2, 3)):
        places = torch.tensor([[extra + first, extra + second]])
        monkeypatch.setattr(TrainQueries, 'draw', lambda *_, places=places: places)
        yield
    monkeypatch.undo()


def test_one_token_of_each_stretch_is_drawn_and_each_token_equally_often():
    neck = make(train_queries=0.3, out_type='avg_featmap')
    torch.manual_seed(0)
    drawn = neck.train_queries.draw(torch.zeros(6000, 10, C), None, 0, 0.0)
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


@pytest.mark.parametrize('out_type', ['raw', 'avg_featmap'])
@pytest.mark.parametrize('extra', [0, 1])
def test_the_mean_gradient_over_all_draws_is_the_exact_one(monkeypatch, out_type, extra):
    chosen = dict(fraction=0.5, gradient_only=True)
    neck = make(train_queries=chosen, norm_cfg=None, out_type=out_type, num_extra_tokens=extra)
    exact = make(norm_cfg=None, out_type=out_type, num_extra_tokens=extra)
    exact.load_state_dict(neck.state_dict())
    x = torch.randn(1, 4 + extra, C)
    weight = torch.randn(exact(x).shape)

    def gradients(model):
        model.zero_grad()
        (model(x) * weight).sum().backward()
        return torch.cat([m.weight.grad.flatten() for m in (model.mapper_in, model.mapper_out)])

    sums = []
    for _ in every_draw(monkeypatch, extra):
        torch.testing.assert_close(neck(x), exact(x))
        sums.append(gradients(neck))
    assert not torch.allclose(sums[0], sums[1])
    torch.testing.assert_close(torch.stack(sums).mean(0), gradients(exact), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('residual', ['none', 'inner', 'outer', 'both'])
def test_the_control_variate_makes_the_mean_of_a_linear_neck_exact(residual):
    chosen = dict(fraction=0.25, control_variate=True)
    options = dict(residual=residual, norm_cfg=None, out_type='avg_featmap', block=Through())
    neck, exact = make(train_queries=chosen, **options), make(**options)
    exact.load_state_dict(neck.state_dict())
    x = torch.randn(2, 8, C)
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[1, 5:] = True
    for m in (None, mask):
        torch.testing.assert_close(neck(x, padding_mask=m), exact(x, padding_mask=m))


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
        (dict(train_queries=0), r'fraction=0 must be a number in \(0, 1\]'),
        (dict(train_queries=True), 'fraction=True must be'),
        (dict(train_queries=dict(fraction=(0.1, 2))), r'fraction=\(0.1, 2\) must be'),
        (dict(train_queries=dict(part=0.1)), 'dict of control_variate, fraction, gradient_only'),
        (dict(train_queries=0.1, out_type='cls_token'), 'nothing to leave out'),
        (dict(train_queries=dict(fraction=0.1, control_variate=True)), 'corrects a mean'),
    ],
)
def test_fields_without_sense_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        make(**fields)


def test_hosts_that_need_certain_tokens_are_refused():
    neck = make(train_queries=0.5)
    with pytest.raises(UserError, match='computes only those that it reads'):
        neck(torch.randn(1, 4, C), queries=slice(0, 1))
    with pytest.raises(UserError, match="needs the map. Fix: out_type='avg_featmap'"):
        neck(torch.randn(1, C, 2, 2))
    with pytest.raises(UserError, match='needs the tokens of its padding mask'):
        neck(torch.randn(1, 4, C), padding_mask=torch.zeros(1, 4, dtype=torch.bool))
