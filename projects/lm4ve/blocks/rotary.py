"""Rotary tables of a language model, for the blocks that keep rotary embedding."""

import inspect

import torch

from lm4ve.blocks.language_model import LanguageModel
from lm4ve.errors import UserError


class RotaryTables:
    """cos and sin of a model's rotary embedding, in fp32, by length.

    Args:
        model (LanguageModel): Whose ``transformers`` module makes the tables.

    Raises:
        UserError: The model has no rotary embedding.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.module = model.rotary()
        if self.module is None:
            raise UserError(
                f"block.rotary=True, but '{model.config.model_type}' has no "
                'rotary embedding. Fix: remove the field.'
            )
        self.layer_types = None
        if 'layer_type' in inspect.signature(self.module.forward).parameters:
            self.layer_types = model.config.layer_types
        self._cache: dict = {}

    def __call__(self, layer: int, length: int, device: torch.device):
        kind = self.layer_types[layer] if self.layer_types else None
        key = (kind, length, device)
        if key not in self._cache:
            positions = torch.arange(length)[None]
            args = (torch.zeros(1), positions) + ((kind,) if kind else ())
            with torch.no_grad():
                cos, sin = self.module(*args)
            self._cache[key] = cos.to(device), sin.to(device)
        return self._cache[key]
