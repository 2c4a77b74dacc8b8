"""Necks that put blocks into encoders; independent of host frameworks."""

from lm4ve.necks.llm_block_insert import LLMBlockInsert
from lm4ve.necks.llm_block_neck import LLMBlockNeck

__all__ = ['LLMBlockInsert', 'LLMBlockNeck']
