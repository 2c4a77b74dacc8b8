"""A variant of the neck is a part that is added: what it can change, and what is recorded."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lm4ve.errors import CheckpointError
from lm4ve.necks.parts.part import Part
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.necks.tiny import BLOCK, C, make


class EverySecondToken(Part):
    """The block computes every second token."""

    def before(self, request, step):
        batch, n, _ = request.tokens.shape
        places = torch.arange(0, n, 2)
        return request._replace(queries=places.expand(batch, -1))

    def add_to(self, record):
        record['out_type'] = 'every second'


class FirstHalf(Part):
    """The block and the readout see the first half of the tokens."""

    def before(self, request, step):
        n = request.tokens.shape[1] // 2
        padding = request.padding_mask[:, :n]
        tokens = request.tokens[:, :n]
        return request._replace(tokens=tokens, padding_mask=padding, read_mask=padding)


class LearnedQuery(nn.Module, Part):
    """A learned token after the encoder's, which alone is computed."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, C))

    def before(self, request, step):
        batch, n, _ = request.tokens.shape
        learned = self.token.expand(batch, -1, -1)
        padding = F.pad(request.padding_mask, (0, 1), value=False)
        return request._replace(
            tokens=torch.cat([request.tokens, learned], dim=1),
            padding_mask=padding,
            queries=slice(n, None),
        )


class Twice(Part):
    """The output is doubled, and the training mode is noted."""

    def __init__(self):
        self.modes = []

    def around(self, run, step, request):
        self.modes.append(step.training)
        return 2 * run(request)


def test_a_part_chooses_the_tokens_that_are_computed():
    neck = make()
    x = torch.randn(2, 5, C)
    expected = neck(x)[:, ::2]
    neck.add_part('every_second', EverySecondToken())
    assert_equal_but_for_rounding(neck(x), expected, neck)


def test_a_part_runs_around_the_path_and_those_before_it():
    neck = make(norm_cfg=None)
    x = torch.randn(2, 5, C)
    expected = 2 * neck(x)[:, ::2]
    neck.add_part('every_second', EverySecondToken())
    neck.add_part('twice', Twice())
    assert_equal_but_for_rounding(neck(x), expected, neck)
    neck.eval()(x)
    assert neck.twice.modes == [True, False]


def test_a_part_chooses_the_tokens_that_are_there_and_those_that_are_averaged():
    neck = make(out_type='avg_featmap')
    x = torch.randn(2, 6, C)
    mask = torch.tensor([[False] * 6, [False, True, True] * 2])
    expected = neck(x[:, :3], padding_mask=mask[:, :3])
    neck.add_part('half', FirstHalf())
    assert_equal_but_for_rounding(neck(x, padding_mask=mask), expected, neck)


@pytest.mark.parametrize('low_rank', ['off', 'auto'])
def test_a_part_adds_a_token_that_trains_and_is_read(low_rank):
    neck = make(out_type='cls_token', low_rank=low_rank)
    x = torch.randn(2, 5, C)
    mask = torch.arange(5).expand(2, -1) > 3
    neck.add_part('query', LearnedQuery())
    added = torch.cat([x[:, :4], neck.query.token.expand(2, -1, -1)], dim=1)
    last = neck.block(neck.mapper_in(added))[:, -1]
    expected = neck.norm(neck.mapper_out(last))
    out = neck(x, padding_mask=mask)
    assert_equal_but_for_rounding(out, expected, neck)
    out.square().sum().backward()
    assert neck.query.token.grad.abs().max() > 0
    assert 'query.token' in neck.state_dict()


@pytest.mark.parametrize('block', [BLOCK, dict(type='MLPBlock', embed_dims=32)])
def test_a_checkpoint_records_a_part(block):
    plain = make(block=block)
    neck = copy.deepcopy(plain)
    neck.add_part('every_second', EverySecondToken())
    assert neck.record()['out_type'] == 'every second'
    neck.load_state_dict(neck.state_dict())
    with pytest.raises(CheckpointError, match='model.neck.out_type'):
        plain.load_state_dict(neck.state_dict())


def test_a_copy_of_a_neck_has_parts_of_its_own():
    neck = make(branch=True)
    other = copy.deepcopy(neck)
    neck.set_progress(0.5)
    assert [part.progress for part in neck.parts] == [0.5]
    assert [part.progress for part in other.parts] == [None]
