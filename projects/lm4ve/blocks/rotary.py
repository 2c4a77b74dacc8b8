"""Rotary position embedding: a language model's tables, and their use on q and k."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from lm4ve.blocks.language_model import LanguageModel
from lm4ve.errors import check, require

#: cos and sin, each ``[1, N, r]`` with a column for each channel that turns.
Tables = tuple[Tensor, Tensor]
#: The value of the field ``rotary`` that names the tables of another project's code.
LLM4SEG = 'llm4seg'


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """Apply rotary position embedding to the first ``r`` channels.

    Channel i turns with channel i + r / 2.

    Args:
        x (Tensor): ``[B, H, N, d]``.
        tables (tuple[Tensor, Tensor]): cos and sin, each ``[B or 1, N, r]`` with even
            ``r <= d``.

    Returns:
        Tensor: ``[B, H, N, d]``; channels from r on stay as they are.
    """
    cos, sin = tables
    cos = cos[:, None].to(x.dtype)
    sin = sin[:, None].to(x.dtype)
    width = cos.shape[-1]
    turned = x[..., :width]
    rest = x[..., width:]
    left, right = turned.chunk(2, dim=-1)
    partner = torch.cat((-right, left), dim=-1)
    turned = turned * cos + partner * sin
    if rest.shape[-1] == 0:
        return turned
    return torch.cat((turned, rest), dim=-1)


class RotaryTables:
    """cos and sin of a model's rotary embedding, in fp32, by length.

    This is no module, so that the tables stay fp32 whatever the block is cast to.

    Args:
        model (LanguageModel): The model whose ``transformers`` module makes the tables.
        kind (bool | str): See ``rotary`` of :class:`lm4ve.blocks.LLMBlock`.

    Raises:
        UserError: The model has no rotary embedding, or there is no such kind.

    Attributes:
        model_type (str): The family's name, for messages.
        module (nn.Module): The library's rotary module, which computes the tables.
        layer_types (list[str] | None): The type of each layer, where the module makes
            tables by type.
        depends_on_length (bool): A call with more tokens changes the module, and thus
            the tables of later calls.
    """

    def __init__(self, model: LanguageModel, kind: bool | str) -> None:
        check('block.rotary', kind, choices=(False, True, LLM4SEG))
        self.kind = kind
        self.model_type = model.config.model_type
        # The model's own module is on the meta device, without values: only its class
        # is used, to build modules on the CPU and in fp32.
        embedding: Any = getattr(model.skeleton, 'rotary_emb', None)
        require(
            embedding is not None,
            f"block.rotary: '{self.model_type}' has no rotary positions. "
            'Fix: block.rotary=False.',
        )
        self.module: Any = type(embedding)(model.config)
        self.layer_types = _find_layer_types(self.module, model)
        self.depends_on_length = _depends_on_length(self.module)

    def __call__(self, layer: int, length: int, device: torch.device) -> Tables:
        """Return cos and sin for a layer, each ``[1, length, r]``."""
        cos, sin = self._own_tables(layer, length)
        if self.kind == LLM4SEG:
            cos, sin = _tables_of_llm4seg(like=cos)
        # Without waiting for a GPU to finish what it computes before.
        return cos.to(device, non_blocking=True), sin.to(device, non_blocking=True)

    def _own_tables(self, layer: int, length: int) -> Tables:
        """Return the language model's own tables for a layer, each ``[1, length, r]``."""
        module = self.module
        if self.depends_on_length:
            # Otherwise the tables would depend on the lengths of earlier calls.
            module = copy.deepcopy(module)
        # Of it the module reads device and dtype, also where 16 bits are the default.
        like = torch.zeros(1, dtype=torch.float32)
        positions = torch.arange(length)[None]
        arguments: list[Any] = [like, positions]
        if self.layer_types:
            arguments.append(self.layer_types[layer])
        with torch.no_grad():
            cos, sin = module(*arguments)
        return cos, sin


def _tables_of_llm4seg(like: Tensor) -> Tables:
    """Return the tables of LLM4Seg's code, which turn all channels by one radian a token.

    Args:
        like (Tensor): ``[1, N, r]``, whose shape the tables get.

    Returns:
        tuple[Tensor, Tensor]: sin, where others have cos, and cos: that code swaps them.
    """
    angles = torch.arange(like.shape[1])[None, :, None].float()
    return angles.sin().expand_as(like), angles.cos().expand_as(like)


def _depends_on_length(module: Any) -> bool:
    """Return whether a call with many tokens changes a rotary module for later calls.

    Modules of the types 'dynamic' and 'longrope' replace their frequencies then.
    """
    # The attribute is a dict of types where layers differ, so its text is searched.
    rope_types = str(getattr(module, 'rope_type', ''))
    return 'dynamic' in rope_types or 'longrope' in rope_types


def _find_layer_types(module: Any, model: LanguageModel) -> list[str] | None:
    """Return the type of each layer, where the rotary module makes tables by type.

    None where its tables are the same for all layers.
    """
    if 'layer_type' not in inspect.signature(module.forward).parameters:
        return None
    types: list[str] = model.config.layer_types
    return types
