"""The neck of a model of ours, which gives it tokens ``[B, N, C]``."""

from typing import Any

from lm4ve.necks import LLMBlockNeck
from lm4ve.registry import MODELS


def build_token_neck(config: Any) -> Any:
    """Build a neck for tokens ``[B, N, C]``, also where there are as many as channels.

    Args:
        config (dict | nn.Module, optional): The neck.

    Returns:
        nn.Module | None: None if ``config`` is None.
    """
    if config is None:
        return None
    neck = MODELS.build(config)
    if isinstance(neck, LLMBlockNeck):
        neck.reader.ruled_out.add('BCN')
    return neck
