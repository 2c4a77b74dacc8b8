"""Find a language model checkpoint and build single layers of it.

The chosen layers are built on the meta device (names and shapes, no memory) and
get their weights. Where these lie in the files is found by looking: the one
prefix under which every name of the layer's ``state_dict()`` exists. So no table
of key prefixes is needed, and a file that does not hold a whole layer is noticed
before anything is read.
"""

import copy
import json
import re
from collections.abc import Sequence
from operator import attrgetter

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from lm4ve.blocks.families import check_supported, layer_spec
from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.fingerprint import Fingerprint
from lm4ve.llm.meta_layout import open_meta
from lm4ve.llm.readers import TensorReader, open_huggingface
from lm4ve.llm.sources import find_files

# BERT checkpoints from TensorFlow times name LayerNorm's parameters so.
_OLD_NAMES = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}
# Integers and 8-bit floats are nothing without their scales.
_STORED_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# What transformers raises about fields that cannot be.
_IMPOSSIBLE = (
    TypeError,
    ValueError,
    KeyError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    StrictDataclassError,
)


class LanguageModel:
    """A language model of which layers can be had one at a time.

    Args:
        config (PretrainedConfig): Its text config.
        name (str): What the user calls it.
        reader (TensorReader, optional): Its weights; None for random ones.
    """

    def __init__(
        self, config: PretrainedConfig, name: str, reader: TensorReader | None = None
    ) -> None:
        self.config = config
        self.name = name
        self.reader = reader
        try:
            self.skeleton = _skeleton(config)
        except _IMPOSSIBLE as e:
            raise _invalid(f"The config of '{name}'", config.model_type, e) from e
        self.spec = layer_spec(config)

    @property
    def num_layers(self) -> int:
        return self.config.num_hidden_layers

    def _bare_layer(self, index: int) -> nn.Module:
        """Build a layer on the meta device: names and shapes, no memory."""
        (first,) = next(m for m in self.skeleton.modules() if isinstance(m, nn.ModuleList))
        with torch.device('meta'):
            # The skeleton's config also names an attention implementation.
            return type(first)(self.skeleton.config, layer_idx=index)

    def resolve_layers(self, layers: Sequence[int]) -> list:
        """Turn negative layer indices into positive ones.

        Raises:
            UserError: An index is out of range, or there are none.
        """
        if not (
            isinstance(layers, (list, tuple, range))
            and layers
            and all(isinstance(i, int) for i in layers)
        ):
            raise UserError(
                f'block.layers={layers!r} must be a non-empty sequence of '
                'layer indices, for example (-1,).'
            )
        count = self.num_layers
        for i in layers:
            if not -count <= i < count:
                raise UserError(
                    f"block.layers={tuple(layers)}: '{self.name}' has {count} layers, so {i} is "
                    f'out of range (valid: {-count} to {count - 1}). Fix: change block.layers.'
                )
        return [i % count for i in layers]

    def load_layer(self, index: int, dtype: torch.dtype, digest: Fingerprint) -> nn.Module:
        """Build one layer with its weights from the files.

        Args:
            index (int): The layer, from 0.
            dtype (torch.dtype): Type to store the weights in.
            digest (Fingerprint): Takes the weights as they were stored.

        Returns:
            nn.Module: ``transformers``' layer, on the CPU.

        Raises:
            CheckpointError: Weights are missing, damaged, quantised, or have
                shapes that disagree with the config.
        """
        layer = self._bare_layer(index)
        stored = self._stored_names(layer, index)
        for name, param in layer.state_dict().items():
            shape = self.reader.shape(stored[name])
            if shape != tuple(param.shape):
                raise CheckpointError(
                    f"'{stored[name]}' of '{self.name}' has the shape {list(shape)}, but its "
                    f'config.json implies {list(param.shape)}. Fix: config and weights are of '
                    'different models; copy both from the same release.'
                )
        state = {}
        for name in sorted(stored):
            weight = self.reader.read(stored[name])
            if (
                weight.dtype not in _STORED_TYPES
                or weight.is_meta
                or weight.layout != torch.strided
            ):
                raise CheckpointError(
                    f"'{stored[name]}' of '{self.name}' is stored as {weight.dtype} "
                    f'({weight.layout}, {weight.device}). Expected dense numbers of 16, 32 or 64 '
                    "bits. Fix: use the model's original weights, not quantised ones."
                )
            # The hash runs beside the copy, and where it can from the copy, so
            # that the file's pages are let go.
            if weight.dtype != dtype:
                digest.update(name, weight)
            state[name] = weight.to(dtype, copy=True, memory_format=torch.contiguous_format)
            if weight.dtype == dtype:
                digest.update(name, state[name])
        layer.load_state_dict(state, strict=True, assign=True)
        return layer

    def random_layer(self, index: int, dtype: torch.dtype, digest: Fingerprint) -> nn.Module:
        """Build one layer with the family's own random initialisation.

        Draws from torch's global CPU generator: the caller seeds and restores
        it.
        """
        layer = self._bare_layer(index)
        self._initialise(layer)
        for name, weight in sorted(layer.state_dict().items()):
            digest.update(name, weight)
        return layer.to(dtype)

    def final_norm(self, dtype: torch.dtype) -> nn.Module | None:
        """The norm after the last layer, with unit gain and no bias.

        The released code of the paper builds it and never loads its weight.
        """
        if not self.spec.final_norm:
            return None
        norm = attrgetter(self.spec.final_norm)(self.skeleton)
        self._initialise(norm)
        return norm.to(dtype)

    def _initialise(self, module: nn.Module) -> None:
        module.to_empty(device='cpu')
        with torch.no_grad():
            module.apply(self.skeleton._init_weights)

    def rotary(self) -> nn.Module | None:
        """A real copy of the model's rotary embedding (fp32, CPU), or None."""
        rotary = getattr(self.skeleton, 'rotary_emb', None)
        return None if rotary is None else type(rotary)(self.config)

    def _stored_names(self, layer: nn.Module, index: int) -> dict[str, str]:
        """Map a layer's parameter names to the names in the files."""
        names = set(self.reader.names())
        wanted = list(layer.state_dict())
        pattern = re.compile(rf'(.*\.)?{index}\.{re.escape(wanted[0])}')
        old = {
            w: next((w[: -len(new)] + o for new, o in _OLD_NAMES.items() if w.endswith(new)), w)
            for w in wanted
        }
        prefixes = [
            m.group(0)[: -len(wanted[0])] for m in (pattern.fullmatch(n) for n in names) if m
        ]
        found = []
        for prefix in sorted(prefixes):
            for spelling in ({w: w for w in wanted}, old):
                stored = {w: prefix + s for w, s in spelling.items()}
                if names.issuperset(stored.values()):
                    found.append(stored)
                    break
        if len(found) == 1:
            return found[0]
        kind = self.config.model_type
        if found:
            raise CheckpointError(
                f"Layer {index} of '{self.name}' is there more than once: "
                f'{", ".join(f[wanted[0]] for f in found)}. Fix: keep one.'
            )
        raise CheckpointError(
            f"'{self.name}' says model_type '{kind}', but its weights are not "
            f"laid out like that family's layers: no prefix has all of "
            f'{", ".join(wanted[:3])}, ... for layer {index}; found '
            f'{", ".join(sorted(names)[:3]) or "no tensors"}, ... This is a '
            'layout of remote code or of an early conversion. Fix: use a '
            f"checkpoint that transformers' own {kind} classes load."
        )


def _skeleton(config: PretrainedConfig) -> nn.Module:
    """Build a model with one layer on the meta device.

    It tells the classes of layers, final norm and rotary embedding. The
    config's own layers are built from the whole config, one at a time.
    """
    short = copy.deepcopy(config)
    # Set after validation: lists with an entry a layer keep their length.
    short.num_hidden_layers = 1
    with torch.device('meta'):
        model = AutoModel.from_config(short)
    model.config.num_hidden_layers = config.num_hidden_layers
    return model


def open_language_model(
    checkpoint: str | None, arch: dict | None, weights: bool = True
) -> LanguageModel:
    """Open a language model by the arguments of ``LLMBlock``.

    Args:
        checkpoint (str, optional): See :func:`lm4ve.llm.sources.find_files`.
        arch (dict, optional): Config fields with ``model_type``, used when
            there is no checkpoint.
        weights (bool): False reads the configuration only.

    Raises:
        CheckpointError: Files are missing or damaged.
        UnsupportedModelError: The family has no spec or is refused.
        UserError: Neither or both of ``checkpoint`` and ``arch`` are given.
    """
    if (checkpoint is None) == (arch is None):
        raise UserError(
            f'block.checkpoint={checkpoint!r} and block.arch={arch!r}: give exactly one. A '
            'checkpoint (a local folder or a hub id) for a real language model; '
            'arch=dict(model_type=..., hidden_size=..., ...) for a random block without files.'
        )
    if arch is not None:
        return LanguageModel(_config(arch, 'block.arch'), name='arch')
    source, filename = find_files(checkpoint)
    config_file = source.find('config.json')
    if config_file is not None:
        try:
            fields = json.loads(config_file.read_text())
        except ValueError as e:
            raise CheckpointError(f'{config_file} is not JSON: {e}. Fix: copy it again.') from e
        config = _config(fields, str(config_file))
        reader = open_huggingface(source, filename) if weights else None
        return LanguageModel(config, source.name, reader)
    if source.find('params.json') is not None:
        config, reader = open_meta(source)
        return LanguageModel(config, source.name, reader)
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has neither config.json (Hugging Face) nor params.json "
        f'(Meta); found {", ".join(source.names()[:12]) or "nothing"}. Fix: point at the folder '
        'that holds one of them beside the weights.'
    )


def _config(fields: dict, origin: str) -> PretrainedConfig:
    """Build the text config; refuse what no block can be built of."""
    kind = fields.get('model_type') if isinstance(fields, dict) else None
    if not isinstance(kind, str):
        raise CheckpointError(
            f"{origin} has no model_type, the name of the model's family in "
            'transformers. Fix: use the config.json that was released beside '
            "the weights, or arch=dict(model_type='llama', ...)."
        )
    check_supported(fields)
    fields = {k: v for k, v in fields.items() if k != 'model_type'}
    try:
        config = AutoConfig.for_model(kind, **fields).get_text_config()
    except _IMPOSSIBLE as e:
        raise _invalid(origin, kind, e) from e
    layer_spec(config)  # refuses variants, before any weights are fetched
    return config


def _invalid(origin: str, kind: str, error: Exception) -> CheckpointError:
    reason = ' '.join(str(error).split())
    return CheckpointError(
        f"{origin} is not that of a valid '{kind}' model ({type(error).__name__}: {reason}). Fix: "
        "correct the field, or copy the model's config.json again."
    )
