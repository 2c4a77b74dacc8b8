"""Language model layers as visual encoder layers; independent of necks and hosts."""

from lm4ve.blocks.families import FAMILIES
from lm4ve.blocks.frozen import Frozen, count_parameters, frozen_tensors
from lm4ve.blocks.llm_block import LLMBlock
from lm4ve.blocks.mlp_block import MLPBlock

__all__ = [
    'FAMILIES',
    'Frozen',
    'LLMBlock',
    'MLPBlock',
    'count_parameters',
    'frozen_tensors',
]
