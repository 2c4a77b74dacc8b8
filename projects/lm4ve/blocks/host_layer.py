"""Run a family's own layer: language models of ``transformers`` that have no spec.

``layer.py`` joins the parts of a layer that a spec names. A family without a spec runs
here as the library wrote its layer: it gets rotary tables by which no channel turns and
an explicit mask, and all its tokens are computed.

Nobody here has read such a layer. Some depend on positions in ways that no argument
switches off: a bias by distance, a convolution, a recurrent state. Others mask tokens
themselves, or read what image tokens do not have. So every layer is tried with random
tokens before a block is made of it (:func:`find_defect`), and one that does not behave
as a bidirectional layer without positions, or does not obey its mask, is refused.

:class:`HostFamily` finds the layers in the library's model and tries them,
:class:`HostLayer` runs one, and :class:`HostRotary` makes its rotary tables.
"""

import copy
import dataclasses
import inspect
import math
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedModel,
)

from lm4ve.blocks.families import LayerSpec, unsupported
from lm4ve.blocks.families.spec import RARE_FIELDS
from lm4ve.blocks.tokens import Queries, take_tokens
from lm4ve.errors import UserError, listing
from lm4ve.llm.checkpoint import Checkpoint
from lm4ve.llm.library_layout import convert_to_library

#: What a layer's ``forward`` is given where it takes it.
_GIVEN = ('attention_mask', 'position_embeddings', 'position_ids', 'alibi')
#: Arguments that keep their default: caches, what else is returned, and the tokens of
#: another sequence.
_LEFT_OUT = (
    'cache',
    'cache_position',
    'encoder_attention_mask',
    'encoder_hidden_states',
    'head_mask',
    'layer_past',
    'output_attentions',
    'output_router_logits',
    'past_key_value',
    'past_key_values',
    'use_cache',
)
#: Fields of a config that limit how far a token sees.
_OF_WINDOWS = re.compile('window|chunk|local_attention|block_size')
#: That of them which ``LanguageModel.window`` reads where there are no types of layers.
_KNOWN_WINDOW = 'sliding_window'
#: Entries of ``layer_types`` whose masks ``LanguageModel.window`` knows.
_KNOWN_TYPES = (
    'attention',
    'chunked_attention',
    'full_attention',
    'sliding_attention',
)
#: A window of the layer that is tried, and the number of tokens that it is tried with.
_TRIED_WINDOW = 4
_TRIED_TOKENS = 12
#: Two outputs are equal below the first difference and differ above the second, relative
#: to the largest value: rounding in fp32 gives about 1e-6, a term of positions 0.1.
_LARGEST_ROUNDING = 1e-4
_LEAST_EFFECT = 1e-5
#: Weights with more values than this share the memory of their random values.
_MOST_VALUES = 2**22

#: What a family's rotary module returns: cos and sin, in its own order and width, or
#: complex numbers.
OwnTables = tuple[Tensor, ...] | Tensor


# ----------------------------------------------------------------------------- layer
class HostLayer(nn.Module):
    """A layer of ``transformers`` as a visual encoder layer.

    It stays in eval mode, also where it trains, so that the language model's dropout,
    router noise and gradient checkpointing stay off.

    Args:
        layer (nn.Module): The library's layer with its weights.
        index (int): Which layer of its model it is.
        rotary (HostRotary, optional): Makes the tables that the layer takes; None if
            the family has no rotary embedding.
        uses_rotary (bool): Whether the library's model gives this layer tables.
    """

    def __init__(
        self,
        layer: nn.Module,
        index: int,
        rotary: 'HostRotary | None',
        uses_rotary: bool = False,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.index = index
        self.rotary = rotary
        self.uses_rotary = uses_rotary
        self.arguments = _accepted(layer)
        self.train(self.training)

    def train(self, mode: bool = True) -> 'HostLayer':
        """Set the mode of this module; the library's layer stays in eval mode."""
        super().train(mode)
        self.layer.eval()
        return self

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        queries: Queries = None,
        rotary: OwnTables | None = None,
    ) -> Tensor:
        """Run the layer on all tokens, then take the queries.

        Args:
            x (Tensor): ``[B, N, D]``.
            mask (Tensor, optional): Bool, broadcastable to ``[B, 1, N, N]``, True where
                a token may look. It has all tokens' rows, whatever the queries are.
            queries: Which tokens to return: None, a slice, or ``[B, Q]``.
            rotary (tuple[Tensor, ...] | Tensor, optional): What :class:`HostRotary`
                returns. None: no channel turns, and all tokens have position 0. A layer
                without rotary embedding gets the positions alone.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        length = x.shape[1]
        positions = torch.arange(length, device=x.device)[None]
        if rotary is None:
            positions = torch.zeros_like(positions)
        tables = rotary
        if self.rotary is not None and (rotary is None or not self.uses_rotary):
            tables = self.rotary.identity(self.index, length, x.device)
        values = dict(
            attention_mask=additive_mask(mask, x),
            position_embeddings=_cast(tables, x.dtype),
            position_ids=positions,
            alibi=None,
        )
        out = self.layer(x, **{name: values[name] for name in self.arguments})
        if isinstance(
            out, (tuple, list)
        ):  # routing, attention weights or a cache follow
            out = out[0]
        return take_tokens(out, queries)


def _accepted(layer: nn.Module) -> list[str]:
    """Return which of the values of :data:`_GIVEN` a layer takes."""
    parameters = inspect.signature(layer.forward).parameters
    accepted = [name for name in _GIVEN if name in parameters]
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if takes_more and 'position_embeddings' not in accepted:
        accepted.append('position_embeddings')  # some layers only hand the tables on
    return accepted


def additive_mask(mask: Tensor | None, x: Tensor) -> Tensor:
    """Write a mask as the library's eager attention adds it to the scores.

    A token that may look nowhere, as padding on the left of a causal mask, looks
    everywhere: its output means nothing, but must be finite.

    Args:
        mask (Tensor, optional): Bool, broadcastable to ``[B, 1, N, N]``; None: all
            tokens see all.
        x (Tensor): The layer's input ``[B, N, D]``, for the sizes and the dtype.

    Returns:
        Tensor: ``[B, 1, N, N]``.
    """
    batch, length, _ = x.shape
    added = x.new_zeros(batch, 1, length, length)
    if mask is None:
        return added
    looks_nowhere = ~mask.any(dim=-1, keepdim=True)
    hidden = ~(mask | looks_nowhere)
    return added.masked_fill(hidden, torch.finfo(x.dtype).min)


def _cast(tables: OwnTables | None, dtype: torch.dtype) -> OwnTables | None:
    """Bring cos and sin into the layer's dtype, as the library does."""
    if isinstance(tables, tuple):
        return tuple(table.to(dtype) for table in tables)
    return tables


# ---------------------------------------------------------------------------- rotary
class HostRotary:
    """The rotary tables of a family in the form that its own layers take, in fp32.

    This is no module, so that the tables stay fp32 whatever the block is cast to.

    Args:
        module (nn.Module): The library's rotary module, on the CPU.
        layer_types (list[str], optional): The type of each layer, where the module
            makes tables by type.
    """

    def __init__(self, module: nn.Module, layer_types: list[str] | None) -> None:
        self.module = module
        self.layer_types = layer_types

    def __call__(self, layer: int, length: int, device: torch.device) -> OwnTables:
        """Return the tables of the positions from 0 to ``length - 1`` for a layer."""
        return self._tables(torch.arange(length)[None], layer, device)

    def identity(self, layer: int, length: int, device: torch.device) -> OwnTables:
        """Return tables by which no channel turns: those of position 0, without a scale.

        Some families multiply cos and sin by a factor (YaRN), which is left out.
        """
        tables = self._tables(torch.zeros(1, length, dtype=torch.long), layer, device)
        if isinstance(tables, Tensor):
            return torch.ones_like(tables)
        scale = torch.stack([table.abs().max() for table in tables]).max()
        return tuple(table / scale for table in tables)

    @torch.no_grad()
    def _tables(self, positions: Tensor, layer: int, device: torch.device) -> OwnTables:
        arguments: list[Any] = [torch.zeros(1), positions]
        if self.layer_types is not None:
            arguments.append(self.layer_types[layer])
        # A copy, since some modules remember the longest sequence that they have seen.
        made = copy.deepcopy(self.module)(*arguments)
        if isinstance(made, Tensor):
            return made.to(device)
        return tuple(table.to(device) for table in made)


# ---------------------------------------------------------------------------- family
class HostFamily:
    """A family of ``transformers`` that has no spec, and what its own model is made of.

    Args:
        config (PretrainedConfig): The (text) config.

    Attributes:
        model (PreTrainedModel): The library's model on the meta device, with all its
            layers.
        layers (str): The path of the list of its layers.
        rotary (HostRotary | None): Makes the tables that the layers take.

    Raises:
        UnsupportedModelError: The library cannot build the model, or its layers cannot
            be found for certain.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        self.config: Any = config
        self.kind = config.model_type
        try:
            self.model = _build_on_meta(config)
        except Exception as e:  # of many kinds
            reason = f'transformers cannot build its model ({_one_line(e)})'
            raise unsupported(self.kind, reason) from e
        self.layers = self._find_layers()
        modules = self._rotary_modules()
        self.rotary_modules = len(modules)
        #: Layer -> what :meth:`model_arguments` has found.
        self.known_arguments: dict[int, dict[str, Any] | None] = {}
        self.rotary: HostRotary | None = None
        if modules:
            self.rotary = self._build_rotary(modules[0])

    def spec(self) -> LayerSpec:
        """Return the part of a spec that does not concern the layers' parts."""
        return LayerSpec(
            reads=RARE_FIELDS,
            experts=True,
            layers=self.layers,
            final_norm=self._find_final_norm(),
        )

    def empty_layer(self, index: int) -> nn.Module:
        """Return a copy of a layer on the meta device."""
        stack: Any = self.model.get_submodule(self.layers)
        layer: nn.Module = copy.deepcopy(stack[index])
        return layer

    def build_layer(self, own: nn.Module, index: int, trainable: str) -> HostLayer:
        """Return a layer with weights as one of a block.

        Args:
            own (nn.Module): The library's layer with its weights.
            index (int): Which one it is.
            trainable (str): The field of :class:`lm4ve.blocks.LLMBlock`.
        """
        if trainable == 'none':
            _turn_buffers_into_parameters(own)
        given = self.model_arguments(index) or {}
        uses_rotary = given.get('position_embeddings') is not None
        return HostLayer(own, index, self.rotary, uses_rotary)

    def convert(self, files: Checkpoint) -> Checkpoint:
        """Return a checkpoint whose tensors have the names and forms of the model's."""
        return dataclasses.replace(
            files, convert=partial(convert_to_library, model=self.model)
        )

    # ----------------------------------------------------------------- what there is
    def model_arguments(self, index: int) -> dict[str, Any] | None:
        """Return what the library's model gives a layer beside the tokens.

        The model runs on the meta device, and its layers hand on their input.

        Returns:
            dict | None: Values by argument; None if the model does not run there.
        """
        if index not in self.known_arguments:
            model = _build_on_meta(self.config)
            layers: Any = model.get_submodule(self.layers)
            self.known_arguments[index] = _record_arguments(model, layers, index)
        return self.known_arguments[index]

    def _find_layers(self) -> str:
        """Return the path of the only list with as many modules as the config has layers."""
        count = getattr(self.config, 'num_hidden_layers', None)
        paths: list[str] = []
        for path, module in self.model.named_modules():
            if not isinstance(module, nn.ModuleList) or len(module) != count:
                continue
            if not any(path.startswith(f'{outer}.') for outer in paths):
                paths.append(path)
        if len(paths) != 1:
            found = listing(paths) or 'none'
            reason = f'no list of {count} modules in its model is the only one: {found}'
            raise unsupported(self.kind, reason)
        return paths[0]

    def _rotary_modules(self) -> list[nn.Module]:
        """Return what makes rotary tables outside of the layers."""
        found = []
        for path, module in self.model.named_modules():
            is_rotary = type(module).__name__.endswith('RotaryEmbedding')
            if is_rotary and not path.startswith(f'{self.layers}.'):
                found.append(module)
        return found

    def _build_rotary(self, module: nn.Module) -> HostRotary:
        """Build a rotary module anew, on the CPU."""
        kind: Any = type(module)
        layer_types = None
        if 'layer_type' in inspect.signature(kind.forward).parameters:
            layer_types = getattr(self.config, 'layer_types', None)
        try:
            return HostRotary(kind(self.config), layer_types)
        except Exception as e:  # of many kinds
            reason = f'its rotary module cannot be built ({_one_line(e)})'
            raise unsupported(self.kind, reason) from e

    def _find_final_norm(self) -> str:
        """Return the path of the norm that is defined after the layers, '' if none is."""
        found = []
        holder, _, _ = self.layers.rpartition('.')
        for path in {'', holder}:
            inside = self.layers.removeprefix(f'{path}.' if path else '')
            names = [
                name for name, _ in self.model.get_submodule(path).named_children()
            ]
            first = names.index(inside.partition('.')[0]) + 1
            for name in names[first:]:
                full = f'{path}.{name}' if path else name
                module = self.model.get_submodule(full)
                is_leaf = next(module.children(), None) is None
                if is_leaf and type(module).__name__.endswith('Norm'):
                    found.append(full)
        if len(found) > 1:
            reason = f'several norms follow its layers: {listing(sorted(found))}'
            raise unsupported(self.kind, reason)
        return found[0] if found else ''

    # ---------------------------------------------------------------------- refusals
    def rotary_tables(self, rotary: bool | str, indices: Sequence[int]) -> HostRotary:
        """Return what makes the layers' tables, for a block that keeps rotary embedding.

        Args:
            rotary (bool | str): The field ``block.rotary``.
            indices (Sequence[int]): The layers.

        Raises:
            UserError: It is none that the library's module makes, or there are several
                modules, or none outside of the layers.
        """
        reason = ''
        if rotary is not True:
            reason = 'its own layers take only the tables of its own model'
        elif self.rotary_modules > 1:
            reason = 'it has several rotary modules'
        elif self.rotary is None:
            reason = 'its model makes no rotary tables outside of its layers'
        elif any(self.model_arguments(index) is None for index in indices):
            reason = 'which layers get rotary tables cannot be seen'
        if reason or self.rotary is None:
            raise UserError(
                f"block.rotary={rotary!r}: '{self.kind}' has no layer spec, and {reason}. "
                'Fix: block.rotary=False.'
            )
        return self.rotary

    def check_windows(self, indices: Sequence[int], causal: bool) -> None:
        """Refuse layers whose own masks are not known, where they would count.

        They count with a causal mask, and in models that are bidirectional themselves.

        Args:
            indices (Sequence[int]): The layers.
            causal (bool): Whether the block is causal.

        Raises:
            UserError: A field of the config limits how far a token sees, and nothing
                here reads it.
        """
        functions = vars(sys.modules[type(self.model).__module__])
        if not causal and 'create_causal_mask' in functions:
            return
        unknown = []
        types = getattr(self.config, 'layer_types', None)
        if types:
            for index in indices:
                if types[index] not in _KNOWN_TYPES:
                    unknown.append(f'layer_types[{index}]={types[index]!r}')
        else:
            for name, value in vars(self.config).items():
                if _is_window(name, value) and name != _KNOWN_WINDOW:
                    unknown.append(name)
        if unknown:
            raise UserError(
                f"block.window=True: '{self.kind}' has no layer spec, and how "
                f'{listing(unknown)} limits attention is not known. Fix: '
                'block.window=False.'
            )

    def check_layer(self, index: int) -> None:
        """Try a layer with random weights and random tokens.

        For a layer of LLaMA-7B this takes about a second and the memory of its largest
        matrix: matrices share their values, see :func:`_noise`. Windows are made
        shorter than the number of tokens.

        Raises:
            UnsupportedModelError: No block can be made of it, with the reason.
        """
        layer = self.empty_layer(index)
        given = self.model_arguments(index) or {}
        reason = _find_unusable_parts(layer, given)
        if not reason:
            try:
                reason = find_defect(self._build_trial(index), self.config.hidden_size)
            except Exception as e:  # of many kinds: it is foreign code
                reason = f'cannot run alone ({_one_line(e)})'
        if not reason:
            return
        types = getattr(self.config, 'layer_types', None)
        kind = f" of the type '{types[index]}'" if types else ''
        raise unsupported(self.kind, f'its layer {index}{kind} {reason}')

    def _build_trial(self, index: int) -> HostLayer:
        """Build a layer with random weights and with windows of a few tokens."""
        config = copy.deepcopy(self.config)
        for name, value in vars(config).items():
            if _is_window(name, value) and value > _TRIED_WINDOW:
                vars(config)[name] = _TRIED_WINDOW
        # In a loop over experts: the product of all at once would copy their weights.
        config._experts_implementation = 'eager'
        stack: Any = _build_on_meta(config).get_submodule(self.layers)
        layer = stack[index]
        _fill_with_noise(layer)
        return HostLayer(layer, index, self.rotary)


def check_host_block(trainable: str, dtype: str, has_soft_mask: bool) -> None:
    """Refuse the fields of a block that need to know the parts of a layer.

    Args:
        trainable, dtype (str): The fields of :class:`lm4ve.blocks.LLMBlock`.
        has_soft_mask (bool): Whether its causal mask is soft.

    Raises:
        UserError: One of them has such a value.
    """
    if trainable not in ('none', 'all'):
        raise UserError(
            f"block.trainable='{trainable}' needs a family with a layer spec, which "
            "says what the parts of its layers are. Fix: 'none' or 'all'."
        )
    if dtype in ('int8', 'float8'):
        raise UserError(
            f"block.dtype='{dtype}' needs a family with a layer spec, which says what "
            "the parts of its layers are. Fix: 'bfloat16'."
        )
    if has_soft_mask:
        raise UserError(
            'block.causal=dict(soft=...) needs a family with a layer spec: it changes '
            'the weights after softmax. Fix: block.causal=True.'
        )


def _build_on_meta(config: PretrainedConfig) -> PreTrainedModel:
    """Build a family's model without memory, with the attention that obeys any mask."""
    auto: Any = AutoModel
    if config.is_encoder_decoder:
        auto = AutoModelForTextEncoding  # the encoder alone
    with torch.device('meta'):
        model: PreTrainedModel = auto.from_config(
            copy.deepcopy(config), attn_implementation='eager'
        )
    return model


def _is_window(name: str, value: object) -> bool:
    """Return whether a field of a config is a number of tokens that a token sees."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and bool(value) and _OF_WINDOWS.search(name) is not None


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}'


def _turn_buffers_into_parameters(layer: nn.Module) -> None:
    """Make a layer's buffers, as the biases of routers, parameters that can be frozen."""
    for module in layer.modules():
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_floating_point():
                del module._buffers[name]
                module.register_parameter(name, nn.Parameter(buffer))


# ----------------------------------------------------------------------------- trial
class _Reached(Exception):
    """The layer was called whose arguments are looked for."""


def _record_arguments(
    model: PreTrainedModel, layers: nn.ModuleList, index: int
) -> dict[str, Any] | None:
    """Run a model on the meta device up to a layer; see ``HostFamily.model_arguments``."""
    found: dict[str, Any] = {}

    def hand_on(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden

    def record(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            found.update(
                value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
            )
        raise _Reached

    for layer in layers[:index]:
        layer.forward = hand_on
    layers[index].register_forward_pre_hook(record, with_kwargs=True)
    embedding: Any = model.get_input_embeddings()
    width = embedding.weight.shape[1]
    inputs = dict(
        inputs_embeds=torch.zeros(1, 2, width, device='meta'),
        input_ids=torch.zeros(1, 2, dtype=torch.long, device='meta'),
    )
    for name, value in inputs.items():  # some models take only one of them
        try:
            model.eval()(**{name: value})
        except _Reached:
            return found
        except Exception:  # of many kinds: it is foreign code without values
            found.clear()
    return None


def _find_unusable_parts(layer: nn.Module, given: dict[str, Any]) -> str:
    """Describe what a layer takes or holds that a block has no values for.

    Args:
        layer (nn.Module): The library's layer.
        given (dict): What its model gives it, as far as that is known.
    """
    parameters = [*inspect.signature(layer.forward).parameters.values()]
    tokens = parameters.pop(0).name
    taken = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    taken += [n for n, value in given.items() if value is not None and n != 'self']
    known = (tokens, *_GIVEN, *_LEFT_OUT)
    unknown = sorted({name for name in taken if name not in known})
    if unknown:
        return f'also takes {listing(unknown)}, which image tokens do not have'
    unsaved = sorted(
        {name for name, _ in layer.named_buffers()} - {*layer.state_dict()}
    )
    if unsaved:
        return f'holds {listing(unsaved)}, which no checkpoint has'
    return ''


def _fill_with_noise(layer: nn.Module) -> None:
    """Give all tensors of a layer on the meta device random values, without gradients."""
    generator = torch.Generator().manual_seed(0)
    for module in layer.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            values = _noise(parameter.shape, generator)
            module.register_parameter(name, nn.Parameter(values, requires_grad=False))
        for name, buffer in [*module.named_buffers(recurse=False)]:
            module.register_buffer(name, _noise(buffer.shape, generator))


def _noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw values by which a product's output is about half as large as its input.

    The rows of a large matrix overlap in memory, each a few values behind the one
    before, so that it takes next to none.
    """
    if len(shape) < 2:  # gains and biases
        return 0.3 * torch.randn(shape, generator=generator) + 1
    # Small enough that softmax chooses no single token.
    scale = 0.5 / math.sqrt(shape[-1])
    if shape.numel() <= _MOST_VALUES:
        return torch.randn(shape, generator=generator) * scale
    strides = [1, 7, 13, 17, 19][len(shape) - 1 :: -1]
    last = sum(s * (size - 1) for s, size in zip(strides, shape, strict=True))
    values = torch.randn(last + 1, generator=generator) * scale
    return values.as_strided(shape, strides)


@torch.no_grad()
def find_defect(layer: HostLayer, width: int) -> str:
    """Describe how a layer differs from one without positions that obeys its mask.

    One batch has the tokens as they are and changed in several ways, so that samples
    that mix, and experts with a limited number of tokens, are found too.

    Args:
        layer (HostLayer): In fp32, on the CPU.
        width (int): D.

    Returns:
        str: What it does wrong; '' if nothing is.
    """
    generator = torch.Generator().manual_seed(1)
    count = _TRIED_TOKENS
    half = count // 2
    x = torch.randn(count, width, generator=generator)
    others = torch.randn(count, width, generator=generator)
    order = torch.randperm(count, generator=generator)
    other_first = torch.cat((others[:1], x[1:]))
    other_last = torch.cat((x[:-1], others[-1:]))
    other_half = torch.cat((x[:half], others[half:]))
    open_mask = torch.ones(count, count, dtype=torch.bool)
    causal_mask = open_mask.tril()
    padding_mask = (torch.arange(count) < half).expand(count, count)
    trials = [
        (x, open_mask),
        (x[order], open_mask),
        (other_first, open_mask),
        (other_last, open_mask),
        (x, padding_mask),
        (other_half, padding_mask),
        (x, causal_mask),
        (other_half, causal_mask),
    ]
    tokens = torch.stack([tokens for tokens, _ in trials])
    masks = torch.stack([mask for _, mask in trials])
    out: Any = layer(tokens, masks[:, None])

    if not isinstance(out, Tensor) or out.shape != tokens.shape:
        return 'does not return a vector for each token'
    if not out.isfinite().all():
        return 'returns values that are not finite'
    plain, permuted, new_first, new_last, padded, new_padded, causal, new_causal = out
    if not _equal(permuted, plain[order]):
        return 'depends on the order of the tokens'
    if not _all_differ(new_first[1:], plain[1:]):
        return 'does not let all tokens read the first one'
    if not _all_differ(new_last[:-1], plain[:-1]):
        return 'does not let all tokens read the last one'
    if not _equal(new_padded[:half], padded[:half]):
        return 'reads padding'
    if not _equal(new_causal[:half], causal[:half]):
        return 'reads later tokens in spite of a causal mask'
    if not _equal(causal[-1], plain[-1]):
        return 'does not let the last token read all others through a causal mask'
    return ''


def _equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two outputs are equal up to rounding."""
    return bool((a - b).abs().max() <= _LARGEST_ROUNDING * b.abs().max())


def _all_differ(a: Tensor, b: Tensor) -> bool:
    """Return whether two outputs ``[N, D]`` differ at each token."""
    differences = (a - b).abs().amax(dim=-1)
    return bool((differences > _LEAST_EFFECT * b.abs().max()).all())
