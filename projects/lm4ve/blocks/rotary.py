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
#: The value of the field ``rotary`` that names the tables of another project's code.
LLM4SEG = 'llm4seg'
#: A base for the module of a layer without rotary embedding, which is built, but whose
#: tables no layer applies.
_BASE_WITHOUT_USE = 1.0


def rotate(x: Tensor, tables: Tables, pairs: bool = False) -> Tensor:
    """Apply rotary position embedding to the first ``r`` channels.

    Args:
        x (Tensor): ``[B, H, N, d]``.
        tables (tuple[Tensor, Tensor]): cos and sin, each ``[B or 1, N, r]`` with even
            ``r <= d``.
        pairs (bool): Channel 2i turns with channel 2i + 1. If False, channel i turns
            with channel i + r / 2.

    Returns:
        Tensor: ``[B, H, N, d]``; channels from r on stay as they are.
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


# ------------------------- what a family's rotary module returns -> cos and sin [1, N, r]
# Forms of families in which channel i turns with channel i + r / 2.
def _halves(output: Any) -> Tables:
    """Read (cos, sin) of r channels each, the second half as the first."""
    cos, sin = output
    return cos, sin


def _half_width(output: Any) -> Tables:
    """Read (cos, sin) of r / 2 channels each, which serve for both halves."""
    cos, sin = output
    return cos.repeat(1, 1, 2), sin.repeat(1, 1, 2)


def _backwards(output: Any) -> Tables:
    """Read (cos, sin) of a family that turns the other way (nanochat)."""
    cos, sin = output
    return cos, -sin


# Forms of families in which channel 2i turns with channel 2i + 1.
def _pairs(output: Any) -> Tables:
    """Read (cos, sin) whose two halves are equal, with a column for each pair in both."""
    cos, sin = output
    first_cos, _ = cos.chunk(2, dim=-1)
    first_sin, _ = sin.chunk(2, dim=-1)
    return _each_twice(first_cos, first_sin)


def _interleaved(output: Any) -> Tables:
    """Read (cos, sin) in which each column stands twice, one beside the other."""
    cos, sin = output
    return cos, sin


def _sine_first(output: Any) -> Tables:
    """Read (sin, cos) with a column for each pair of channels."""
    sin, cos = output
    return _each_twice(cos, sin)


def _complex(output: Any) -> Tables:
    """Read ``cos + i sin`` with a column for each pair of channels."""
    return _each_twice(output.real, output.imag)


def _each_twice(cos: Tensor, sin: Tensor) -> Tables:
    """Repeat each column for both channels of a pair: ``[1, N, r / 2] -> [1, N, r]``."""
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

    Attributes:
        model_type (str): The family's name, for messages.
        module (nn.Module): The library's rotary module, which computes the tables.
        modules_by_layer (list[nn.Module]): One such module for each layer, where layers
            differ in their base; empty where all share ``module``.
        layer_types (list[str] | None): The type of each layer, where the module makes
            tables by type.
        form (str): How to read what the module returns, a key of :data:`FORMS`.
        reach (int | None): The largest number of tokens for which the family leaves its
            scores unscaled; None: it never scales them by position.
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
        module_class: Any = type(embedding)
        # Empty where all layers share the one module below.
        self.modules_by_layer = _build_modules_by_layer(module_class, model)
        self.module: Any = module_class(model.config)
        self.layer_types = _find_layer_types(self.module, model)
        # A key of FORMS, not the function itself, which could not be pickled.
        self.form = model.spec.rotary
        # With more tokens than this the family scales its scores; None: it never does.
        self.reach: int | None = None
        if model.spec.reach is not None:
            self.reach = model.spec.reach(model.config)
        self.depends_on_length = _depends_on_length(self.module)

    def __call__(self, layer: int, length: int, device: torch.device) -> Tables:
        """Return cos and sin for a layer, each ``[1, length, r]``.

        Raises:
            UserError: At this length the family scales its scores by position.
        """
        self._check_length(length)
        cos, sin = self._own_tables(layer, length)
        if self.kind == LLM4SEG:
            cos, sin = _tables_of_llm4seg(like=cos)
        # Without waiting for a GPU to finish what it computes before.
        return cos.to(device, non_blocking=True), sin.to(device, non_blocking=True)

    def _check_length(self, length: int) -> None:
        """Check that a number of tokens is within :attr:`reach`.

        Beyond it the language model multiplies its attention scores by a factor that
        depends on the position. The layers of a block do not, so their result would be
        wrong.

        Args:
            length (int): The number of tokens.

        Raises:
            UserError: There are more tokens than ``reach``.
        """
        if not self.reach:
            return
        what = f"the number of tokens with block.rotary=True of '{self.model_type}'"
        check(what, length, most=self.reach)

    def _own_tables(self, layer: int, length: int) -> Tables:
        """Return the language model's own tables for a layer, each ``[1, length, r]``."""
        module = self.module
        if self.modules_by_layer:
            module = self.modules_by_layer[layer]
        if self.depends_on_length:
            # Otherwise the tables would depend on the lengths of earlier calls.
            module = copy.deepcopy(module)
        # Of it the module reads device and dtype, also where 16 bits are the default.
        like = torch.zeros(1, dtype=torch.float32)
        positions = torch.arange(length)[None]
        arguments: list[Any] = [like, positions]
        if self.layer_types:
            arguments.append(self.layer_types[layer])
        read_form = FORMS[self.form]
        with torch.no_grad():
            return read_form(module(*arguments))


def _tables_of_llm4seg(like: Tensor) -> Tables:
    """Return the tables of LLM4Seg's code, which turn all channels by one radian a token.

    Args:
        like (Tensor): ``[1, N, r]``, whose shape the tables get.

    Returns:
        tuple[Tensor, Tensor]: sin, where others have cos, and cos: that code swaps them.
    """
    angles = torch.arange(like.shape[1])[None, :, None].float()
    return angles.sin().expand_as(like), angles.cos().expand_as(like)


def _build_modules_by_layer(module_class: Any, model: LanguageModel) -> list[Any]:
    """Build a rotary module for each layer, where the config gives each its own base.

    Only granite_swa's config does. A base of 0 marks a layer without rotary embedding.
    Its module is built with another base, since 0 gives no finite angles, and its
    tables are not applied: :attr:`LLMLayer.uses_rotary` of that layer is False.

    Args:
        module_class (type): The class of the library's rotary module.
        model (LanguageModel): The language model.

    Returns:
        list[nn.Module]: A module for each layer of the model; empty where all layers
        share one.
    """
    modules = []
    for base in getattr(model.config, 'layer_rope_theta', ()):
        config = copy.deepcopy(model.config)
        if not base:
            base = _BASE_WITHOUT_USE
        config.rope_parameters['rope_theta'] = base
        modules.append(module_class(config))
    return modules


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
