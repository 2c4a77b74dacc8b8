"""Families of ``transformers`` that have no spec: where their layers are, and whether they serve.

The library's model is built on the meta device, with all its layers. The layers
themselves run as :class:`lm4ve.blocks.host_layer.HostLayer`.
"""

import copy
import dataclasses
import inspect
import re
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForTextEncoding, PretrainedConfig

from lm4ve.blocks.families import FAMILIES, LayerSpec, unsupported
from lm4ve.blocks.families.spec import RARE_FIELDS
from lm4ve.blocks.host_layer import HostLayer, HostRotary, use_fused_attention
from lm4ve.blocks.host_run import (
    ModelRun,
    behaves_like_norm,
    modules_outside,
    run_without_values,
)
from lm4ve.blocks.host_trial import (
    TRIED_WINDOW,
    fill_with_noise,
    find_defect,
    find_unusable_parts,
    fuses_attention,
)
from lm4ve.errors import UserError, listing
from lm4ve.llm.checkpoint import Checkpoint
from lm4ve.llm.library_layout import convert_to_library

if TYPE_CHECKING:  # its module takes half a second to import
    from transformers import PreTrainedModel

#: Fields of a config that limit how far a token sees.
_OF_WINDOWS = re.compile('window|chunk|local_attention|block_size')
#: That of them which ``LanguageModel.window`` reads where there are no types of layers.
_KNOWN_WINDOW = 'sliding_window'
#: Entries of ``layer_types`` of layers that see all tokens.
_WITHOUT_WINDOW: tuple[str, ...] = ('attention', 'full_attention')
#: Entries of ``layer_types`` whose masks ``LanguageModel.window`` knows.
_KNOWN_TYPES = (*_WITHOUT_WINDOW, 'chunked_attention', 'sliding_attention')


class HostFamily:
    """A family of ``transformers`` that has no spec, and what its own model is made of.

    Args:
        config (PretrainedConfig): The (text) config.

    Attributes:
        model (PreTrainedModel): The library's model on the meta device, with all its
            layers.
        layers (str): The path of the list of its layers.
        rotary_modules (int): How many rotary modules the model has.
        rotary (HostRotary | None): Makes the tables that the layers take.
        row (Family | None): The family's row in the table, if it has one.
        fused_layers (set[int]): The layers that were tried and get torch's fused
            attention.

    Raises:
        UnsupportedModelError: The library cannot build the model, or its layers cannot
            be found for certain.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        self.config: Any = config
        self.kind = config.model_type
        self.row = FAMILIES.get(self.kind)
        try:
            self.model = _build_on_meta(config)
        except Exception as e:  # of many kinds
            reason = f'transformers cannot build its model ({_one_line(e)})'
            raise unsupported(self.kind, reason) from e
        self.layers = self._find_layers()
        self.fused_layers: set[int] = set()
        modules = self._find_rotary_modules()
        self.rotary_modules = len(modules)
        self.rotary: HostRotary | None = None
        if modules:
            self.rotary = self._build_rotary(modules[0])

    @cached_property
    def run(self) -> ModelRun:
        """What the library's model does around its layers.

        Raises:
            UnsupportedModelError: It fails in an unexpected way.
        """
        model = _build_on_meta(self.config)
        is_encoder = bool(self.config.is_encoder_decoder)
        try:
            return run_without_values(model, self.layers, is_encoder)
        except (
            Exception
        ) as e:  # of kinds that no model of the library is known to raise
            reason = f'its model does not run ({_one_line(e)})'
            raise unsupported(self.kind, reason) from e

    def spec(self) -> LayerSpec:
        """Return a spec that says where the layers are.

        It leaves the parts of a layer at their defaults, since none of them is read. The
        final norm is looked for by :meth:`find_final_norm`.
        """
        return LayerSpec(
            reads=RARE_FIELDS,
            layers=self.layers,
            final_norm='',
        )

    # ------------------------------------------------------------------- for a block
    def empty_layer(self, index: int) -> nn.Module:
        """Return a copy of a layer on the meta device."""
        stack: Any = self.model.get_submodule(self.layers)
        layer: nn.Module = copy.deepcopy(stack[index])
        return layer

    def convert(self, files: Checkpoint) -> Checkpoint:
        """Return a checkpoint whose tensors have the names and forms of the model's."""
        return dataclasses.replace(
            files, convert=partial(convert_to_library, model=self.model)
        )

    def build_layer(
        self, library_layer: nn.Module, index: int, trainable: str
    ) -> HostLayer:
        """Return the library's layer as one of a block.

        Args:
            library_layer (nn.Module): The layer with its weights.
            index (int): Which one it is.
            trainable (str): The field of :class:`lm4ve.blocks.LLMBlock`.
        """
        if trainable != 'all':
            _turn_buffers_into_parameters(library_layer)
        if index in self.fused_layers:
            use_fused_attention(library_layer)
        arguments = self.model_arguments(index)
        uses_rotary = False
        if arguments is not None:
            uses_rotary = arguments.get('position_embeddings') is not None
        return HostLayer(library_layer, index, self.rotary, uses_rotary)

    def rotary_tables(self, rotary: bool | str, indices: Sequence[int]) -> HostRotary:
        """Return what makes the layers' tables, for a block that keeps rotary embedding.

        Args:
            rotary (bool | str): The field ``block.rotary``.
            indices (Sequence[int]): The layers.

        Raises:
            UserError: The tables cannot be those that the library's model gives.
        """
        reason = ''
        if rotary is not True:
            reason = 'its own layers take only the tables of its own model'
        elif self.rotary_modules > 1:
            reason = 'it has several rotary modules'
        elif self.rotary is None:
            reason = 'its model makes no rotary tables outside of its layers'
        elif any(self.model_arguments(index) is None for index in indices):
            reason = f'which layers get rotary tables is not seen ({self.run.failure})'
        if reason or self.rotary is None:
            raise UserError(
                f"block.rotary={rotary!r}: '{self.kind}' has no layer spec, and "
                f'{reason}. Fix: block.rotary=False.'
            )
        return self.rotary

    def find_final_norm(self) -> str:
        """Return the path of the norm that the model applies after its layers, '' if none.

        It is known by what it does in a run of the model: it is called after the last
        layer, and it behaves like a norm.

        Raises:
            UserError: It is not seen whether there is one, or there are several.
        """
        run = self.run
        if run.failure:
            outside = [path for path, _ in modules_outside(self.model, self.layers)]
            norms = self._norms_among(outside)
            if not norms:
                return ''
            reason = f'which of {listing(norms)} follows its layers is not seen ({run.failure})'
            raise self._final_norm_error(reason)
        norms = self._norms_among(run.after)
        if len(norms) > 1:
            raise self._final_norm_error(
                f'several norms follow its layers: {listing(norms)}'
            )
        if norms:
            return norms[0]
        if not run.after and not run.hands_on:
            raise self._final_norm_error('what follows its layers is no module')
        return ''

    def _norms_among(self, paths: Sequence[str]) -> list[str]:
        """Return the paths of modules that behave like norms, and lie within no other."""
        norms = []
        for path in dict.fromkeys(paths):
            module = self.model.get_submodule(path)
            if behaves_like_norm(module, self.config.hidden_size):
                norms.append(path)
        return _outermost(norms)

    def _final_norm_error(self, reason: str) -> UserError:
        """Return the error for a final norm that is not known for certain."""
        return UserError(
            f"block.final_norm=True: '{self.kind}' has no layer spec, and {reason}. Fix: "
            'block.final_norm=False.'
        )

    # ------------------------------------------------------------ what the model has
    def _find_layers(self) -> str:
        """Return the path of the only list with as many modules as the config has layers."""
        count = getattr(self.config, 'num_hidden_layers', None)
        paths: list[str] = []
        for path, module in self.model.named_modules():
            is_within = any(path.startswith(f'{outer}.') for outer in paths)
            if is_within or not isinstance(module, nn.ModuleList):
                continue
            if len(module) == count:
                paths.append(path)
        if len(paths) != 1:
            found = listing(paths) or 'none'
            reason = f'its model has not exactly one list of {count} modules ({found})'
            raise unsupported(self.kind, reason)
        return paths[0]

    def _find_rotary_modules(self) -> list[nn.Module]:
        """Return the modules outside of the layers that make rotary tables."""
        modules = []
        for path, module in self.model.named_modules():
            is_rotary = type(module).__name__.endswith('RotaryEmbedding')
            is_in_layer = path.startswith(f'{self.layers}.')
            if is_rotary and not is_in_layer:
                modules.append(module)
        return modules

    def _build_rotary(self, module: nn.Module) -> HostRotary:
        """Build a rotary module anew, on the CPU.

        Args:
            module (nn.Module): The model's own, on the meta device.

        Raises:
            UnsupportedModelError: It cannot be built from the config.
        """
        module_class: Any = type(module)
        layer_types = None
        if 'layer_type' in inspect.signature(module_class.forward).parameters:
            layer_types = getattr(self.config, 'layer_types', None)
        try:
            return HostRotary(module_class(self.config), layer_types)
        except Exception as e:  # of many kinds
            reason = f'its rotary module cannot be built ({_one_line(e)})'
            raise unsupported(self.kind, reason) from e

    def model_arguments(self, index: int) -> dict[str, Any] | None:
        """Return what the library's model gives a layer beside the tokens, by name.

        None if the model does not come to this layer without values.
        """
        return self.run.arguments.get(index)

    # ---------------------------------------------------------------------- refusals
    def check_windows(self, indices: Sequence[int], causal: bool) -> None:
        """Refuse layers whose own masks are not known, where they would count.

        They count with a causal mask, and in models that are bidirectional themselves.
        Of a family without a row it is not known which it is.

        Args:
            indices (Sequence[int]): The layers.
            causal (bool): Whether the block is causal.

        Raises:
            UserError: A field of the config limits how far a token sees, and nothing
                here reads it.
        """
        if self.row is not None and not causal:
            return  # the windows of a model that sees both ways stand in the table
        unknown = self._find_unknown_windows(indices)
        if unknown:
            raise UserError(
                f"block.window=True: '{self.kind}' has no layer spec, and how "
                f'{listing(unknown)} limits attention is not known. Fix: '
                'block.window=False.'
            )

    def _find_unknown_windows(self, indices: Sequence[int]) -> list[str]:
        """Return the config's fields for windows that ``LanguageModel.window`` does not read.

        Args:
            indices (Sequence[int]): The layers whose types count, where the config
                names types.
        """
        unknown = []
        types = getattr(self.config, 'layer_types', None)
        known_types = _KNOWN_TYPES
        if self.row is None:
            known_types = _WITHOUT_WINDOW
        if types:
            for index in indices:
                if types[index] not in known_types:
                    unknown.append(f'layer_types[{index}]={types[index]!r}')
            return unknown
        for name, value in vars(self.config).items():
            is_known = self.row is not None and name == _KNOWN_WINDOW
            if _is_window(name, value) and not is_known:
                unknown.append(name)
        return unknown

    def check_layer(self, index: int) -> None:
        """Try a layer with random weights and random tokens.

        A layer of LLaMA-7B takes two seconds of processor time, and the memory of its
        largest matrix; experts take five seconds for a billion weights.

        Raises:
            UnsupportedModelError: No block can be made of it, with the reason.
        """
        arguments = self.model_arguments(index)
        if arguments is None:
            arguments = {}
        width = self.config.hidden_size
        reason = find_unusable_parts(self.empty_layer(index), arguments)
        if not reason:
            try:
                trial = self._build_trial(index)
                reason = find_defect(trial, width)
            except Exception as e:  # of many kinds: it is foreign code
                reason = f'cannot run alone ({_one_line(e)})'
        if reason:
            raise unsupported(self.kind, f'its layer {self._name(index)} {reason}')
        if self.model._supports_sdpa and fuses_attention(trial, width):
            self.fused_layers.add(index)

    def _build_trial(self, index: int) -> HostLayer:
        """Build a layer with random weights, and with windows of a few tokens."""
        config = copy.deepcopy(self.config)
        for name, value in vars(config).items():
            if _is_window(name, value) and value > TRIED_WINDOW:
                vars(config)[name] = TRIED_WINDOW
        # In a loop over experts: the product of all at once would copy their weights.
        config._experts_implementation = 'eager'
        stack: Any = _build_on_meta(config).get_submodule(self.layers)
        layer = stack[index]
        fill_with_noise(layer)
        return HostLayer(layer, index, self.rotary)

    def _name(self, index: int) -> str:
        """Describe a layer for a message: its number, its type, and the types of others."""
        types = getattr(self.config, 'layer_types', None)
        if not types:
            return str(index)
        name = f"{index} of the type '{types[index]}'"
        others = sorted(set(types) - {types[index]})
        if others:
            name += f' (others are of {listing(others)}: block.layers)'
        return name


def check_host_block(trainable: str, has_soft_mask: bool) -> None:
    """Refuse the fields of a block that need to know the parts of a layer.

    Args:
        trainable (str): The field of :class:`lm4ve.blocks.LLMBlock`.
        has_soft_mask (bool): Whether its causal mask is soft.

    Raises:
        UserError: One of them has such a value.
    """
    needs_spec = (
        'needs a family with a layer spec, which says what the parts of a layer are'
    )
    if trainable == 'norms':
        raise UserError(
            f"block.trainable='norms' {needs_spec}. Fix: 'none', 'lora' or 'all'."
        )
    if has_soft_mask:
        raise UserError(
            f'block.causal=dict(soft=...) {needs_spec}. Fix: block.causal=True.'
        )


def _build_on_meta(config: PretrainedConfig) -> 'PreTrainedModel':
    """Build a family's model without memory, with the attention that obeys any mask."""
    auto: Any = AutoModel
    if config.is_encoder_decoder:
        auto = AutoModelForTextEncoding  # the encoder alone
    with torch.device('meta'):
        model: PreTrainedModel = auto.from_config(
            copy.deepcopy(config), attn_implementation='eager'
        )
    return model


def _outermost(paths: Sequence[str]) -> list[str]:
    """Return the paths of modules that lie within none of the others."""
    outermost = []
    for path in paths:
        if not any(path.startswith(f'{other}.') for other in paths):
            outermost.append(path)
    return outermost


def _turn_buffers_into_parameters(layer: nn.Module) -> None:
    """Make a layer's buffers, as the biases of routers, parameters that can be frozen."""
    for module in layer.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                del module._buffers[name]
                module.register_parameter(name, nn.Parameter(buffer))


def _is_window(name: str, value: object) -> bool:
    """Return whether a field of a config says how many tokens a token sees.

    Args:
        name (str): The field's name, in which a word for windows must occur.
        value: Its value; only a whole number other than 0 counts.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value == 0:
        return False
    return _OF_WINDOWS.search(name) is not None


def _one_line(error: Exception) -> str:
    """Write an error of foreign code as one line for a message."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}'
