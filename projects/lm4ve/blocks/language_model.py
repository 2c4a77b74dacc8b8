"""Build single layers of a language model, with a checkpoint's weights or random ones.

The chosen layers are built on the meta device (names and shapes, no memory) and then
get their weights from ``lm4ve.llm``, one tensor at a time.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTextEncoding, PretrainedConfig
from transformers.activations import XIELUActivation

from lm4ve.blocks.families import FAMILIES, check_supported, layer_spec
from lm4ve.blocks.families.spec import RARE_FIELDS, LayerSpec
from lm4ve.blocks.host_family import HostFamily
from lm4ve.blocks.masks import Window
from lm4ve.blocks.norms import affine_of, form_of
from lm4ve.blocks.permuted import permuted
from lm4ve.blocks.scaled import draw_like, is_drawn, scale_scores
from lm4ve.errors import (
    CheckpointError,
    UnsupportedModelError,
    UserError,
    check,
    require,
)
from lm4ve.llm.checkpoint import Checkpoint, open_checkpoint
from lm4ve.llm.foreign_config import FOREIGN_FAMILIES, build_foreign_config
from lm4ve.llm.sources import FileSource

#: What is called with the name and the values of each weight as it was stored.
OnWeight = Callable[[str, Tensor], None]


class LanguageModel:
    """A language model that gives its layers one at a time.

    Only the configuration is read here; weights are read when a layer is built.

    Args:
        checkpoint (str | FileSource, optional): See
            :func:`lm4ve.llm.sources.find_files`.
        arch (dict, optional): Config fields with ``model_type``, used when
            there is no checkpoint.

    Attributes:
        files (Checkpoint | None): The checkpoint, if there is one.
        name (str): The user's name of it.
        config (PretrainedConfig): Its text config.
        family (Family | None): The family's row in the table, if it has one.
        host (HostFamily | None): What runs the family's own layers, if it has no spec.
        spec (LayerSpec): What the parts of its layers are called.
        skeleton (PreTrainedModel): ``transformers``' model on the meta device, with one
            layer where there is a spec. It has the classes of layers, final norm and
            rotary embedding.

    Raises:
        CheckpointError: Files are missing or damaged.
        UnsupportedModelError: The family is refused, or has no spec and its own layers
            cannot be used.
        UserError: Neither or both of ``checkpoint`` and ``arch`` are given.
    """

    def __init__(
        self, checkpoint: str | FileSource | None, arch: dict[str, Any] | None
    ) -> None:
        if (arch is None) == (checkpoint is None):
            raise UserError(
                f'block.checkpoint={checkpoint!r} and block.arch={arch!r}: give '
                'exactly one, a checkpoint for a real language model or '
                'arch=dict(model_type=..., ...) for a random block without files.'
            )
        self.files: Checkpoint | None = None
        self.name = 'arch'
        origin = 'block.arch'
        fields: Any = arch
        if checkpoint is not None:
            self.files = open_checkpoint(checkpoint)
            self.name = self.files.name
            origin = str(self.files.config_file)
            fields = self.files.config
        check(origin, fields, kind=dict)
        family = fields.get('model_type')
        field = f"model_type (the family's name in transformers) of {origin}"
        check(field, family, kind=str)
        check_supported(fields)
        self.host: HostFamily | None = None
        try:
            self.config: Any = build_foreign_config(fields, origin).get_text_config()
            self.family = FAMILIES.get(self.config.model_type)
            spec = layer_spec(self.config)
            if spec is not None:
                self._use_spec(spec)
            else:
                self._use_own_layers()
        except UserError:
            raise
        except Exception as e:  # of many kinds, none of which names the file
            raise CheckpointError(
                f"{origin} is not that of a valid '{family}' model "
                f'({type(e).__name__}: {" ".join(str(e).split())}).'
            ) from e

    def _use_spec(self, spec: LayerSpec) -> None:
        """Set what describes the layers of a family that has a spec."""
        self.spec = spec
        _drop_unread_fields(self.config, self.spec)
        self.skeleton: Any = _build_skeleton(self.config)

    def _use_own_layers(self) -> None:
        """Set what describes the layers of a family without a spec, the library's own.

        Raises:
            UnsupportedModelError: The library's model cannot be used.
        """
        self.host = HostFamily(self.config)
        self.spec = self.host.spec()
        self.skeleton = self.host.model
        if self.files is not None:
            self.files = self.host.convert(self.files)

    def resolve_layers(self, layers: Sequence[int]) -> list[int]:
        """Turn negative layer indices into positive ones.

        Raises:
            UserError: An index is out of range or there twice, or there is none.
            UnsupportedModelError: The family has such a layer, but no block can be made
                of it.
        """
        check('block.layers', layers, kind=(list, tuple, range))
        count = self.config.num_hidden_layers
        for i in layers:
            check('a layer of block.layers', i, kind=int)
            require(
                -count <= i < count,
                f"block.layers={layers!r}: '{self.name}' has no layer {i}. Fix: numbers from "
                f'{-count} to {count - 1}.',
            )
        indices = [i % count for i in layers]
        if not indices or len(set(indices)) != len(indices):
            raise UserError(
                f'block.layers={layers!r} must name a layer, and each once.'
            )
        for i in indices:
            self._check_usable(i)
        return indices

    def _check_usable(self, index: int) -> None:
        """Refuse a layer of which no block can be made.

        Raises:
            UnsupportedModelError: With the family's reason.
        """
        reason = ''
        if self.family is not None and self.family.refuse is not None:
            reason = self.family.refuse(self.config, index)
        if reason:
            raise UnsupportedModelError(
                f"Layer {index} of '{self.name}' ({self.config.model_type}) cannot be "
                f'a block: {reason}. Fix: change block.layers or block.checkpoint.'
            )
        if self.host is not None:
            self.host.check_layer(index)

    # ------------------------------------------------------------------- layers
    def build_layer(
        self,
        index: int,
        dtype: torch.dtype,
        pretrained: bool | str,
        on_weight: OnWeight,
    ) -> nn.Module:
        """Build a layer with the checkpoint's weights or the family's random ones.

        Random ones draw from torch's global CPU generator: the caller seeds and
        restores it.

        Args:
            index (int): Which layer, from 0.
            dtype (torch.dtype): Type to hold the weights in.
            pretrained (bool | str): Whether the weights are the checkpoint's;
                'permuted' brings those of each matrix into a random order, 'scaled'
                draws random ones at the scale of each projection's.
            on_weight (callable): Called with each weight as it was stored, for the
                fingerprint.

        Returns:
            nn.Module: ``transformers``' layer, on the CPU.

        Raises:
            CheckpointError: See :meth:`lm4ve.llm.checkpoint.Checkpoint.read_layer`.
        """
        layer = self._empty_layer(index)
        if pretrained == 'scaled' and self.files is not None:
            self._initialize(layer)
            self._scale(layer, index, self.files)
            self._cast(layer, dtype, on_weight)
        elif pretrained and self.files is not None:
            shuffles = pretrained == 'permuted'
            self._fill(layer, index, dtype, shuffles, self.files, on_weight)
        else:
            self._initialize(layer)
            self._cast(layer, dtype, on_weight)
        return layer

    def _empty_layer(self, index: int) -> nn.Module:
        """Build a layer on the meta device, with the family's own class."""
        if self.host is not None:
            return self.host.empty_layer(index)
        kind = self._layer_class()
        arguments = {}
        # Families call the index by one of two names, if they want it.
        for name in ('layer_idx', 'layer_id'):
            if name in inspect.signature(kind.__init__).parameters:
                arguments[name] = index
        with torch.device('meta'):
            # The skeleton's config also names an attention implementation.
            layer: nn.Module = kind(self.skeleton.config, **arguments)
        return layer

    def _layer_class(self) -> Any:
        """Return the class of the model's layers."""
        if self.spec.layers:
            stack = attrgetter(self.spec.layers)(self.skeleton)
            return type(stack[0])
        for module in self.skeleton.modules():
            if isinstance(module, nn.ModuleList):
                return type(module[0])
        raise LookupError('the model has no list of layers')

    def _fill(
        self,
        layer: nn.Module,
        index: int,
        dtype: torch.dtype,
        shuffles: bool,
        files: Checkpoint,
        on_weight: OnWeight,
    ) -> None:
        """Load the weights of a layer from the checkpoint, one tensor at a time.

        Args:
            layer (nn.Module): The layer on the meta device; it gets the tensors.
            index (int): Which layer.
            dtype (torch.dtype): Type to hold the weights in.
            shuffles (bool): Bring the elements of each matrix into a random order.
            files (Checkpoint): The checkpoint.
            on_weight (callable): See :meth:`build_layer`.
        """
        state = {}
        for name, weight in self._read_layer(layer, index, files):
            if shuffles:
                weight = permuted(weight, f'{index}.{name}')
            held_dtype = torch.float32 if self._stays_exact(name) else dtype
            held = weight.to(
                held_dtype, copy=True, memory_format=torch.contiguous_format
            )
            state[name] = held
            # It is hashed while the next one is copied: the copy, if it is exact, so
            # that the file's pages are freed.
            is_exact = weight.dtype == held_dtype
            on_weight(name, held if is_exact else weight)
        layer.load_state_dict(state, strict=True, assign=True)

    def _read_layer(
        self, layer: nn.Module, index: int, files: Checkpoint
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and stored weights of a layer, one at a time.

        Args:
            layer (nn.Module): The layer, for the names and shapes of its tensors.
            index (int): Which layer.
            files (Checkpoint): The checkpoint.
        """
        shapes = {}
        for name, tensor in layer.state_dict().items():
            shapes[name] = tuple(tensor.shape)
        place = str(index)
        if self.spec.place is not None:
            place = self.spec.place(self.config, index)
        yield from files.read_layer(place, shapes)

    def _scale(self, layer: nn.Module, index: int, files: Checkpoint) -> None:
        """Draw a layer's projections anew, at the scale of the checkpoint's.

        Args:
            layer (nn.Module): The layer with the family's random weights; it is changed
                in place.
            index (int): Which layer.
            files (Checkpoint): The checkpoint.
        """
        drawn = {}
        for name, weight in self._read_layer(layer, index, files):
            if is_drawn(name, weight):
                drawn[name] = draw_like(weight, f'{index}.{name}')
        layer.load_state_dict(drawn, strict=False, assign=True)
        if self.spec.qk_norm:
            scale_scores(attrgetter(self.spec.attention)(layer))

    def _cast(self, layer: nn.Module, dtype: torch.dtype, on_weight: OnWeight) -> None:
        """Cast a layer of random weights, which are shown in fp32 before.

        Args:
            layer (nn.Module): The layer; it is changed in place.
            dtype (torch.dtype): Type to hold the weights in.
            on_weight (callable): See :meth:`build_layer`.
        """
        state = layer.state_dict()
        exact = {}
        for name, weight in sorted(state.items()):
            on_weight(name, weight)
            if self._stays_exact(name):
                exact[name] = weight
        layer.to(dtype).load_state_dict(exact, strict=False, assign=True)

    def _stays_exact(self, name: str) -> bool:
        """Return whether a weight stays in fp32, whatever the block's dtype is.

        Biases of routers do: rounded to 16 bits, they would choose other experts. So do
        the weights that the library's model keeps in fp32.
        """
        parts = ['e_score_correction_bias', 'expert_bias']
        parts.extend(self.skeleton._keep_in_fp32_modules_strict or ())
        return any(part in name for part in parts)

    def final_norm(self, dtype: torch.dtype) -> nn.Module | None:
        """Build the norm after the last layer, with unit gain and no bias.

        The released code of the paper builds it and never loads its weight.

        Returns:
            nn.Module | None: None where the family has no such norm.

        Raises:
            UserError: The family has no spec, and it cannot be seen whether it has one.
        """
        path = self.spec.final_norm
        if self.host is not None:
            path = self.host.find_final_norm()
        if not path:
            return None
        norm = self._initialize(attrgetter(path)(self.skeleton))
        width = self.config.hidden_size
        eps = form_of(norm).eps
        gain, _ = affine_of(norm, eps, torch.ones(1, width))
        if gain is not None and not torch.allclose(gain.float(), torch.ones(width)):
            # Nemotron's gain is 1 + w, and its w is 1 at first.
            norm.get_parameter('weight').data -= gain - 1
        return norm.to(dtype)

    def _initialize(self, module: nn.Module) -> nn.Module:
        """Give a module on the meta device the family's random values, on the CPU."""
        module.to_empty(device='cpu')
        with torch.no_grad():
            module.apply(self.skeleton._init_weights)
            for part in module.modules():
                if isinstance(part, XIELUActivation):  # which no initializer covers
                    part.load_state_dict(type(part)().state_dict())
        return module

    # ------------------------------------------------------------------ windows
    def window(self, index: int) -> Window | None:
        """Return the window of a layer, as the library's model masks it.

        Args:
            index (int): Which layer.

        Returns:
            Window | None: None: its tokens see all tokens, or all earlier ones.
        """
        config = self.config
        kind = self._attention_kind(index)
        if kind == 'local':  # gpt_neo's, whose mask is its own
            width = config.window_size
            return Window(width, chunked=False, both_ways=False)
        if kind == 'chunked_attention':
            width = config.attention_chunk_size
            return Window(width, chunked=True, both_ways=False)
        if kind != 'sliding_attention' or not getattr(config, 'sliding_window', None):
            return None
        if self.family is None or self.family.window is None:
            return None  # a field that this family's model does not read
        return self.family.window(config)

    def _attention_kind(self, index: int) -> str:
        """Return the config's name for the kind of a layer's attention.

        That is gpt_neo's 'global' or 'local', or in ``transformers``' words for other
        families 'full_attention', 'sliding_attention' or 'chunked_attention'. A config
        that lists no kinds has the same attention in all layers. It then slides if the
        config has a width for it, as mistral's has, so that 'sliding_attention' is
        returned; without a width :meth:`window` finds no window.

        Args:
            index (int): Which layer.
        """
        for field in ('attention_layers', 'layer_types'):
            kinds = getattr(self.config, field, None)
            if kinds:
                kind: str = kinds[index]
                return kind
        return 'sliding_attention'


def _drop_unread_fields(config: PretrainedConfig, spec: LayerSpec) -> None:
    """Remove the fields in ``RARE_FIELDS`` from a config whose family ignores them.

    Otherwise the fields, which have no effect in the library, would have one here.
    """
    for name in RARE_FIELDS:
        if name not in spec.reads:
            vars(config).pop(name, None)


def _build_model(auto: Any, config: PretrainedConfig) -> Any:
    """Build the library's model of a config.

    A family that the library lacks has the model of the one whose config its own extends.
    """
    if config.model_type not in FOREIGN_FAMILIES:
        return auto.from_config(config)
    (of_library,) = type(config).__bases__
    return auto._model_mapping[of_library]._from_config(config)


def _build_skeleton(config: PretrainedConfig) -> Any:
    """Build ``transformers``' model with one layer on the meta device.

    Its config has the number and the types of all layers again afterwards.
    """
    changes: dict[str, Any] = dict(num_hidden_layers=1)
    layer_types = getattr(config, 'layer_types', None)
    if layer_types:
        changes['layer_types'] = layer_types[:1]
    short = copy.deepcopy(config)
    # Set after validation, which requires an entry for each layer in such lists.
    for name, value in changes.items():
        setattr(short, name, value)
    auto: Any = AutoModel
    if short.is_encoder_decoder:
        auto = AutoModelForTextEncoding  # the encoder alone
    with torch.device('meta'):
        skeleton = _build_model(auto, short)
    for name in changes:
        setattr(skeleton.config, name, getattr(config, name))
    return skeleton
