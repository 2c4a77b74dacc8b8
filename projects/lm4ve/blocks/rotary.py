"""Rotary tables of a language model, for the blocks that keep rotary embedding."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lm4ve.blocks.language_model import LanguageModel
from lm4ve.errors import check, require

Tables = tuple[Tensor, Tensor]


def _each_twice(cos: Tensor, sin: Tensor) -> Tables:
    return cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)


#: What a family's module returns -> cos and sin ``[1, N, r]``, a column for each
#: channel.
FORMS: dict[str, Callable[[Any], Tables]] = {
    # Channel i turns with i + r / 2.
    'halves': lambda made: (made[0], made[1]),
    'half width': lambda made: (made[0].repeat(1, 1, 2), made[1].repeat(1, 1, 2)),
    'backwards': lambda made: (made[0], -made[1]),
    # Channel 2i turns with 2i + 1.
    'pairs': lambda made: _each_twice(*(t.chunk(2, dim=-1)[0] for t in made)),
    'interleaved': lambda made: (made[0], made[1]),
    'sine first': lambda made: _each_twice(made[1], made[0]),
    'complex': lambda made: _each_twice(made.real, made.imag),
}


#: Tables of one frequency for all channels.
_ONE_FREQUENCY = ('one-frequency', 'llm4seg')


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
        check('block.rotary', kind, choices=(False, True, *_ONE_FREQUENCY))
        self.one_frequency = kind if isinstance(kind, str) else ''
        rotary: Any = getattr(model.skeleton, 'rotary_emb', None)
        # Real copies, on the CPU and in fp32; of granite_swa each layer has its own
        # base.
        self.module: Any = rotary and type(rotary)(model.config)
        self.by_layer = []
        for base in getattr(model.config, 'layer_rope_theta', ()):
            config = copy.deepcopy(model.config)
            config.rope_parameters['rope_theta'] = (
                base or 1.0
            )  # 0: the layer turns nothing
            self.by_layer.append(type(rotary)(config))
        self.model_type = model.config.model_type
        require(
            rotary is not None,
            f"block.rotary: '{self.model_type}' has no rotary positions. Fix: block.rotary=False.",
        )
        self.form = model.spec.rotary  # a name, since a function has no pickle
        self.reach = model.spec.reach and model.spec.reach(model.config)
        by_type = 'layer_type' in inspect.signature(self.module.forward).parameters
        self.layer_types: list[str] | None = (
            model.config.layer_types if by_type else None
        )
        kinds = str(getattr(self.module, 'rope_type', ''))  # a dict where layers differ
        #: Whether a call writes into the module what follows from the number of tokens.
        self.by_length = 'dynamic' in kinds or 'longrope' in kinds

    def __call__(self, layer: int, length: int, device: torch.device) -> Tables:
        """Return cos and sin for a layer, each ``[1, length, r]``.

        Raises:
            UserError: At this length the family scales its scores by position.
        """
        if (
            self.reach
        ):  # the family scales scores of far positions, which lm4ve does not
            field = (
                f"the number of tokens with block.rotary=True of '{self.model_type}'"
            )
            check(field, length, most=self.reach)
        options = [self.layer_types[layer]] if self.layer_types else []
        module = self.by_layer[layer] if self.by_layer else self.module
        if self.by_length:
            module = copy.deepcopy(
                module
            )  # or tables would depend on the lengths of earlier calls
        with torch.no_grad():
            made = module(torch.zeros(1), torch.arange(length)[None], *options)
            cos, sin = FORMS[self.form](made)
        if self.one_frequency:
            angles = torch.arange(length)[None, :, None].float()
            cos, sin = angles.cos().expand_as(cos), angles.sin().expand_as(sin)
            cos, sin = (sin, cos) if self.one_frequency == 'llm4seg' else (cos, sin)
        return cos.to(device), sin.to(device)
