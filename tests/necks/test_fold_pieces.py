"""What one look-up at folds sees of a change that leaves no mark, and what later ones do."""

import copy

import pytest
import torch
from torch import nn

from tests.helpers.folds import METHODS, check, distance, every_data, folded, neck_of, plain, tokens


def row_of_a_projection(neck):
    neck.block.layers[0].k_proj.weight.data[5] += 3.0


def with_a_mark(neck):
    with torch.no_grad():
        neck.block.layers[0].k_proj.weight[5] += 3.0


def fused_step(neck):
    """A step of one row, which a fused optimizer leaves without a mark."""
    weight = neck.block.layers[0].k_proj.weight
    weight.grad = torch.zeros_like(weight)
    weight.grad[5] = -10.0
    torch.optim.SGD([weight], lr=0.3, fused=True).step()


def at_the_next_beginning(neck):
    row_of_a_projection(neck)
    nn.Sequential(neck).eval()


@pytest.mark.parametrize('change', [with_a_mark, fused_step, at_the_next_beginning])
def test_a_marked_change_of_one_row_is_seen_at_once(checkpoints, change):
    neck = neck_of(checkpoints, 'fold in pieces', trainable='all')
    for _ in range(3):
        check(neck, change)


def test_an_unmarked_change_of_one_row_is_seen_within_a_round_of_pieces(checkpoints):
    neck = neck_of(checkpoints, 'fold in pieces')
    pieces = len(neck.block.layers[0].k_proj.wrapped.weight)
    before = folded(neck)
    neck.block.layers[0].k_proj.wrapped.weight.data[5] += 3.0
    expected = plain(neck)
    assert distance(before, expected) > 1e-2
    later = [distance(folded(neck), expected) for _ in range(pieces)]
    assert later[-1] < 1e-3


def test_as_many_neighboring_rows_as_there_are_pieces_are_seen_at_once(checkpoints):
    neck = neck_of(checkpoints, 'fold')
    weight = neck.block.layers[0].k_proj.wrapped.weight
    neck.block._fold_memory.PIECE = weight.nbytes // 4
    for start in (0, 3, len(weight) - 4):

        def change(neck, start=start):
            weight.data[start : start + 4] += 3.0

        check(neck, change)


def test_a_small_change_of_one_weight_of_the_mapper_is_seen(checkpoints):
    neck = neck_of(checkpoints, 'absorb')
    folded(neck)
    first = dict(neck.block._fold_memory._values)
    neck.mapper_in.weight.data[1, 2] *= 1 + 1e-5
    folded(neck)
    assert all(neck.block._fold_memory._values[k] is not v for k, v in first.items())


def test_temporary_weights_at_one_address_are_told_apart(checkpoints):
    neck = neck_of(checkpoints, 'fold in pieces', trainable='all')
    for factor in (0.5, 1.5, 2.5):
        other = {k: v.detach() * factor for k, v in neck.named_parameters()}
        with torch.no_grad():
            called = torch.func.functional_call(neck, other, (tokens(), None, slice(0, 2)))
        del other
        twin = copy.deepcopy(neck)
        every_data(lambda t, by=factor: t.mul_(by))(twin)
        torch.testing.assert_close(called, plain(twin), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_what_is_unchanged_is_not_folded_again(checkpoints, method, monkeypatch):
    """However it is called, and however often."""
    neck = neck_of(checkpoints, method)
    folded(neck)
    first = dict(neck.block._fold_memory._values)
    assert first
    for _ in range(40):
        folded(neck)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        neck(tokens()[:1], queries=slice(0, 2))
    compared = []
    monkeypatch.setattr(
        torch, 'equal', lambda a, b, was=torch.equal: compared.append(1) or was(a, b)
    )
    folded(neck)
    assert compared == [1]  # each makes the host wait for a GPU
    values = neck.block._fold_memory._values
    assert values.keys() == first.keys() and all(values[k] is v for k, v in first.items())
