"""Rotary tables of a language model, for the blocks that keep rotary embedding."""

import inspect

import torch
from torch import Tensor

from lm4ve.blocks.language_model import LanguageModel
from lm4ve.errors import UserError


class RotaryTables:
    """cos and sin of a model's rotary embedding, in fp32, by length.

    This is no module, so that the tables stay fp32 whatever the block is cast to.

    Args:
        model (LanguageModel): The model whose ``transformers`` module makes the tables.

    Raises:
        UserError: The model has no rotary embedding.
    """

    def __init__(self, model: LanguageModel) -> None:
        module = model.rotary()
        if module is None:
            raise UserError(
                f"block.rotary=True, but '{model.config.model_type}' has no rotary embedding. "
                'Fix: remove the field.'
            )
        self.module = module
        by_type = 'layer_type' in inspect.signature(module.forward).parameters
        self.layer_types: list[str] | None = model.config.layer_types if by_type else None
        self._cache: dict[tuple[str | None, int, torch.device], tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cos and sin for a layer, each ``[1, length, r]``."""
        kind = self.layer_types[layer] if self.layer_types else None
        key = (kind, length, device)
        if key not in self._cache:
            positions = torch.arange(length)[None]
            with torch.no_grad():
                cos, sin = self.module(torch.zeros(1), positions, *([kind] if kind else []))
            self._cache[key] = cos.to(device), sin.to(device)
        return self._cache[key]
