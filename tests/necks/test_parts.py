"""A variant of the neck is a part that is added: what it can change, and what is recorded."""

import copy

import pytest
import torch

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
        record.queries = 'every second'


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


@pytest.mark.parametrize('block', [BLOCK, dict(type='MLPBlock', embed_dims=32)])
def test_a_checkpoint_records_a_part(block):
    plain = make(block=block)
    neck = copy.deepcopy(plain)
    neck.add_part('every_second', EverySecondToken())
    assert neck.settings()['queries'] == 'every second'
    neck.load_state_dict(neck.state_dict())
    with pytest.raises(CheckpointError, match='model.neck.queries'):
        plain.load_state_dict(neck.state_dict())


def test_a_copy_of_a_neck_has_parts_of_its_own():
    neck = make(branch=True)
    other = copy.deepcopy(neck)
    neck.set_progress(0.5)
    assert [part.progress for part in neck.parts] == [0.5]
    assert [part.progress for part in other.parts] == [None]
