"""Inputs and masks that a block cannot take are answered with what it expects."""

import pytest
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UserError
from tests.blocks.test_families import tokens


@pytest.fixture
def block(checkpoints) -> LLMBlock:
    return LLMBlock(checkpoints('llama'))


@pytest.mark.parametrize('shape', [(2, 6, 31), (6, 32), (2, 32, 3, 3)])
def test_inputs_of_another_shape(block, shape):
    with pytest.raises(UserError, match=r'takes \[B, N, 32\], got \[.*mapper'):
        block(torch.zeros(shape))


@pytest.mark.parametrize(
    'padding',
    [
        torch.zeros(2, 6),
        torch.zeros(2, 6, dtype=torch.long),
        torch.zeros(2, 5, dtype=torch.bool),
        torch.zeros(6, dtype=torch.bool),
        torch.zeros(2, 1, 1, 6, dtype=torch.bool),
    ],
    ids=lambda p: f'{p.dtype}{list(p.shape)}',
)
def test_masks_of_another_type_or_shape(block, padding):
    with pytest.raises(UserError, match=r'padding_mask must be bool \[2, 6\].*got torch'):
        block(tokens(), padding)


def test_samples_that_are_all_padding(block):
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1] = True
    with pytest.raises(UserError, match=r'every token of sample\(s\) \[1\].*Fix'):
        block(tokens(), padding)


def test_errors_survive_the_registry_in_their_type(checkpoints):
    # MMEngine raises a constructor's error again as type(e)(message).
    from mmengine.registry import MODELS

    with pytest.raises(CheckpointError, match='does not exist'):
        MODELS.build(dict(type='LLMBlock', checkpoint='/no/such/folder'))
    assert MODELS.build(dict(type='LLMBlock', checkpoint=checkpoints('llama')))
