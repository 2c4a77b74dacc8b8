"""A tiny neck with a block of LLaMA's family."""

import torch

from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES
from tests.helpers.necks.encoder import loud

#: Channels of the encoder's tokens, and of the block.
C = 12
D = 32

BLOCK = dict(type='LLMBlock', arch=FAMILIES['llama-gqa'])


def make(**kwargs) -> LLMBlockNeck:
    """Build a neck with the same weights every time; its mappers show every token.

    Args:
        **kwargs: Fields of the neck, also ``block``.
    """
    torch.manual_seed(0)
    neck = LLMBlockNeck(in_channels=C, **{'block': BLOCK, **kwargs})
    neck.init_weights()
    return loud(neck, 0.3)
