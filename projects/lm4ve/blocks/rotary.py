"""Rotary position embedding: a language model's tables, and their use on q and k."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lm4ve.blocks.language_model import LanguageModel
from lm4ve.errors import check, require

#: cos and sin, each ``[1, N, r]`` with a column for each channel that turns.
Tables = tuple[Tensor, Tensor]


def rotate(x: Tensor, tables: Tables, pairs: bool = False) -> Tensor:
    """Apply rotary position embedding to the first ``r`` channels.

    Args:
        x (Tensor): ``[B, H, N, d]``.
        tables (tuple[Tensor, Tensor]): cos and sin, each ``[B or 1, N, r]`` with even
            ``r <= d``.
        pairs (bool): Neighboring channels turn together, not those of two halves.
    """
    cos, sin = tables
    cos = cos[:, None].to(x.dtype)
    sin = sin[:, None].to(x.dtype)
    width = cos.shape[-1]
    turned = x[..., :width]
    rest = x[..., width:]
    if pairs:
        left, right = turned[..., ::2], turned[..., 1::2]
        partner = torch.stack((-right, left), dim=-1).flatten(-2)
    else:
        left, right = turned.chunk(2, dim=-1)
        partner = torch.cat((-right, left), dim=-1)
    turned = turned * cos + partner * sin
    if rest.shape[-1] == 0:
        return turned
    return torch.cat((turned, rest), dim=-1)


# ------------------------------------- what a family's module returns, as cos and sin
# Channel i turns with i + r / 2.
def _halves(made: Any) -> Tables:
    cos, sin = made
    return cos, sin


def _half_width(made: Any) -> Tables:
    cos, sin = made
    return cos.repeat(1, 1, 2), sin.repeat(1, 1, 2)


def _backwards(made: Any) -> Tables:
    cos, sin = made
    return cos, -sin


# Channel 2i turns with 2i + 1.
def _pairs(made: Any) -> Tables:
    cos, sin = made
    first_cos, _ = cos.chunk(2, dim=-1)
    first_sin, _ = sin.chunk(2, dim=-1)
    return _each_twice(first_cos, first_sin)


def _interleaved(made: Any) -> Tables:
    cos, sin = made
    return cos, sin


def _sine_first(made: Any) -> Tables:
    sin, cos = made
    return _each_twice(cos, sin)


def _complex(made: Any) -> Tables:
    return _each_twice(made.real, made.imag)


def _each_twice(cos: Tensor, sin: Tensor) -> Tables:
    return cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)


#: Name of a form, as in :attr:`LayerSpec.rotary` -> the function that reads it.
FORMS: dict[str, Callable[[Any], Tables]] = {
    'halves': _halves,
    'half width': _half_width,
    'backwards': _backwards,
    'pairs': _pairs,
    'interleaved': _interleaved,
    'sine first': _sine_first,
    'complex': _complex,
}


# ------------------------------------------------------------------------ the tables
class RotaryTables:
    """cos and sin of a model's rotary embedding, in fp32, by length.

    This is no module, so that the tables stay fp32 whatever the block is cast to.

    Args:
        model (LanguageModel): The model whose ``transformers`` module makes the tables.
        kind (bool | str): See ``rotary`` of :class:`lm4ve.blocks.LLMBlock`.

    Raises:
        UserError: The model has no rotary embedding, or there is no such kind.
    """

    def __init__(self, model: LanguageModel, kind: bool | str) -> None:
        check('block.rotary', kind, choices=(False, True, 'one-frequency', 'llm4seg'))
        self.kind = kind
        self.model_type = model.config.model_type
        embedding: Any = getattr(model.skeleton, 'rotary_emb', None)
        require(
            embedding is not None,
            f"block.rotary: '{self.model_type}' has no rotary positions. "
            'Fix: block.rotary=False.',
        )
        self.modules_by_layer = _modules_of_layers(type(embedding), model)
        # A real copy of the skeleton's, on the CPU and in fp32.
        self.module: Any = type(embedding)(model.config)
        self.layer_types = _types_of_layers(self.module, model)
        self.form = model.spec.rotary  # a name, since a function has no pickle
        self.reach: int | None = None
        if model.spec.reach is not None:
            self.reach = model.spec.reach(model.config)
        # A dict where layers differ.
        rope_types = str(getattr(self.module, 'rope_type', ''))
        #: Whether a call writes into the module what follows from the number of tokens.
        self.depends_on_length = 'dynamic' in rope_types or 'longrope' in rope_types

    def __call__(self, layer: int, length: int, device: torch.device) -> Tables:
        """Return cos and sin for a layer, each ``[1, length, r]``.

        Raises:
            UserError: At this length the family scales its scores by position.
        """
        self._check_length(length)
        cos, sin = self._own_tables(layer, length)
        if isinstance(self.kind, str):
            cos, sin = self._one_frequency(cos)
        return cos.to(device), sin.to(device)

    def _check_length(self, length: int) -> None:
        """Refuse lengths at which the family scales scores, which no layer here does."""
        if not self.reach:
            return
        field = f"the number of tokens with block.rotary=True of '{self.model_type}'"
        check(field, length, most=self.reach)

    def _own_tables(self, layer: int, length: int) -> Tables:
        """Return the language model's own tables."""
        module = self.module
        if self.modules_by_layer:
            module = self.modules_by_layer[layer]
        if self.depends_on_length:
            # Otherwise tables would depend on the lengths of earlier calls.
            module = copy.deepcopy(module)
        inputs: list[Any] = [torch.zeros(1), torch.arange(length)[None]]
        if self.layer_types:
            inputs.append(self.layer_types[layer])
        with torch.no_grad():
            return FORMS[self.form](module(*inputs))

    def _one_frequency(self, like: Tensor) -> Tables:
        """Return tables of one radian a token for all channels of ``[1, N, r]``."""
        angles = torch.arange(like.shape[1])[None, :, None].float()
        cos = angles.cos().expand_as(like)
        sin = angles.sin().expand_as(like)
        if self.kind == 'llm4seg':
            return sin, cos
        return cos, sin


def _modules_of_layers(kind: Any, model: LanguageModel) -> list[Any]:
    """Build a module for each layer where their bases differ (granite_swa); else none."""
    modules = []
    for base in getattr(model.config, 'layer_rope_theta', ()):
        config = copy.deepcopy(model.config)
        # Zero means that the layer turns nothing.
        config.rope_parameters['rope_theta'] = base or 1.0
        modules.append(kind(config))
    return modules


def _types_of_layers(module: Any, model: LanguageModel) -> list[str] | None:
    """Return the layers' types where the module takes one; else None."""
    if 'layer_type' not in inspect.signature(module.forward).parameters:
        return None
    types: list[str] = model.config.layer_types
    return types
