"""Build single layers of a language model, with a checkpoint's weights or random ones.

The chosen layers are built on the meta device (names and shapes, no memory) and then
get their weights from ``lm4ve.llm``, one tensor at a time.
"""

import copy
import inspect
import json
import re
import sys
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTextEncoding, PretrainedConfig
from transformers.activations import XIELUActivation

from lm4ve.blocks.families import check_supported, layer_spec
from lm4ve.blocks.families.spec import RARE_FIELDS
from lm4ve.blocks.norms import affine_of, form_of
from lm4ve.errors import CheckpointError, UnsupportedModelError, UserError, check
from lm4ve.llm.checkpoint import open_checkpoint
from lm4ve.llm.foreign_config import build_foreign_config

# Fields of a language model's config that do not affect its layers: those that all
# models have, where it was loaded from, remote code, storage type (the block's `dtype`
# decides), and heads for text.
_OF_STORAGE = (
    '_attn_implementation _attn_implementation_autoset _commit_hash _experts_implementation '
    'auto_map classifier_dropout finetuning_task gradient_checkpointing task_specific_params '
    'tokenizer_class torch_dtype use_cache'
)
_NOT_OF_LAYERS = {*PretrainedConfig().to_dict(), *_OF_STORAGE.split()} - {'model_type'}
# Fields of layers that do not affect what a trained one computes, or only how many
# there are.
_WITHOUT_EFFECT = (
    'token_id|drop|init|vocab|embedding_|embd|is_decoder|decoder_(bias|out)|cross_att|summary'
    '|classifier|_pred|aux|jitter|router_logits|final_logit|logits?_scal|pretraining|task'
    '|num_(hidden_|decoder_)?layers|^n_layers?$|n_ctx|n_positions|max_window_layers'
    '|attention_types|deterministic|scale_embedding'
)


class Window(NamedTuple):
    """The tokens that a layer attends to.

    Attributes:
        width (int): It attends to the tokens at a distance below this.
        chunked (bool): It attends instead to all tokens of its own chunk of ``width``
            tokens.
        both_ways (bool): The language model itself attends to earlier and later tokens.
    """

    width: int
    chunked: bool
    both_ways: bool


class LanguageModel:
    """A language model that gives its layers one at a time.

    Only the configuration is read here; weights are read when a layer is built.

    Args:
        checkpoint (str, optional): See :func:`lm4ve.llm.sources.find_files`.
        arch (dict, optional): Config fields with ``model_type``, used when
            there is no checkpoint.

    Attributes:
        name (str): The user's name of it.
        config (PretrainedConfig): Its text config.
        spec (LayerSpec): What the parts of its layers are called.
        skeleton (PreTrainedModel): ``transformers``' model with one layer on the meta
            device, which has the classes of layers, final norm and rotary embedding.

    Raises:
        CheckpointError: Files are missing or damaged.
        UnsupportedModelError: The family has no spec or is refused.
        UserError: Neither or both of ``checkpoint`` and ``arch`` are given.
    """

    def __init__(self, checkpoint: str | None, arch: dict[str, Any] | None) -> None:
        if (arch is None) == (checkpoint is None):
            raise UserError(
                f'block.checkpoint={checkpoint!r} and block.arch={arch!r}: give exactly one, a '
                'checkpoint for a real language model or arch=dict(model_type=..., ...) for a '
                'random block without files.'
            )
        self.files = files = None if checkpoint is None else open_checkpoint(checkpoint)
        self.name = 'arch' if files is None else files.name
        origin = 'block.arch' if files is None else str(files.config_file)
        fields: Any = arch if files is None else files.config
        check(origin, fields, kind=dict)
        kind = fields.get('model_type')
        check(
            f"model_type (the family's name in transformers) of {origin}",
            kind,
            kind=str,
        )
        check_supported(fields)
        try:
            self.config: Any = build_foreign_config(fields, origin).get_text_config()
            self.spec = layer_spec(self.config)
            for name in RARE_FIELDS:
                if name not in self.spec.reads:
                    vars(self.config).pop(name, None)
            short = copy.deepcopy(self.config)
            kinds = getattr(short, 'layer_types', None)
            sizes = dict(
                num_hidden_layers=1, **(dict(layer_types=kinds[:1]) if kinds else {})
            )
            # Set after validation, which requires an entry for each layer in such
            # lists.
            for name, value in sizes.items():
                setattr(short, name, value)
            # Of a model with a decoder too, the encoder alone.
            auto: Any = (
                AutoModelForTextEncoding if short.is_encoder_decoder else AutoModel
            )
            with torch.device('meta'):
                self.skeleton = auto.from_config(short)
            for name in sizes:
                setattr(self.skeleton.config, name, getattr(self.config, name))
        except UserError:
            raise
        except Exception as e:  # of many kinds, none of which names the file
            raise CheckpointError(
                f"{origin} is not that of a valid '{kind}' model ({type(e).__name__}: "
                f'{" ".join(str(e).split())}).'
            ) from e

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
            field = f"a layer of block.layers ('{self.name}' has {count})"
            check(field, i, kind=int, least=-count, most=count - 1)
        indices = [i % count for i in layers]
        if not indices or len(set(indices)) != len(indices):
            raise UserError(
                f'block.layers={layers!r} must name a layer, and each once.'
            )
        for i in indices:
            if self.spec.refuse and (reason := self.spec.refuse(self.config, i)):
                raise UnsupportedModelError(
                    f"Layer {i} of '{self.name}' ({self.config.model_type}) cannot be a block: "
                    f'{reason}. Fix: change block.layers or block.checkpoint.'
                )
        return indices

    def load_layers(
        self,
        indices: Sequence[int],
        dtype: torch.dtype,
        pretrained: bool | str,
        layers: list[nn.Module],
    ) -> Iterator[tuple[str, Tensor]]:
        """Append layers to a list, with a checkpoint's weights or the family's random ones.

        Random ones draw from torch's global CPU generator: the caller seeds and
        restores it.

        Args:
            indices (Sequence[int]): Which layers, from 0.
            dtype (torch.dtype): Type to hold the weights in.
            pretrained (bool | str): Whether the weights are the checkpoint's;
                'permuted' brings those of each matrix into a random order.
            layers (list[nn.Module]): Receives ``transformers``' layers, on the CPU.

        Yields:
            tuple[str, Tensor]: Each weight as it was stored, for the fingerprint.

        Raises:
            CheckpointError: See :meth:`lm4ve.llm.checkpoint.Checkpoint.read_layer`.
        """
        lists = (m for m in self.skeleton.modules() if isinstance(m, nn.ModuleList))
        stack = (
            attrgetter(self.spec.layers)(self.skeleton)
            if self.spec.layers
            else next(lists)
        )
        kind = type(stack[0])
        arguments = inspect.signature(kind.__init__).parameters
        # What routes tokens to experts: rounded to 16 bits, it would choose others.
        exact = [
            'e_score_correction_bias',
            *(self.skeleton._keep_in_fp32_modules_strict or ()),
        ]
        if pretrained == 'permuted':
            from lm4ve.blocks.variants import permuted
        for index in indices:
            numbers = {
                name: index for name in ('layer_idx', 'layer_id') if name in arguments
            }
            with torch.device('meta'):
                # The skeleton's config also names an attention implementation.
                layer: nn.Module = kind(self.skeleton.config, **numbers)
            if pretrained and self.files is not None:
                shapes = {
                    name: tuple(tensor.shape)
                    for name, tensor in layer.state_dict().items()
                }
                place = (
                    self.spec.place(self.config, index)
                    if self.spec.place
                    else str(index)
                )
                state = {}
                for name, weight in self.files.read_layer(place, shapes):
                    if pretrained == 'permuted':
                        weight = permuted(weight, f'{index}.{name}')
                    held = (
                        torch.float32 if any(part in name for part in exact) else dtype
                    )
                    state[name] = weight.to(
                        held, copy=True, memory_format=torch.contiguous_format
                    )
                    # The caller hashes it while the next one is copied: the copy, if it
                    # is exact, so that the file's pages are freed.
                    yield name, state[name] if weight.dtype == held else weight
                layer.load_state_dict(state, strict=True, assign=True)
            else:
                self._initialize(layer)
                state = layer.state_dict()
                yield from sorted(state.items())
                kept = {
                    n: t for n, t in state.items() if any(part in n for part in exact)
                }
                layer.to(dtype).load_state_dict(kept, strict=False, assign=True)
            layers.append(layer)

    def window(self, index: int) -> Window | None:
        """Return what a layer sees beside the causal mask, as ``transformers``' model masks it."""
        config, masks = self.config, vars(sys.modules[type(self.skeleton).__module__])
        kinds = getattr(config, 'attention_layers', None) or getattr(
            config, 'layer_types', None
        )
        kind = (
            kinds[index] if kinds else 'sliding_attention'
        )  # of mistral all layers slide
        width = getattr(config, 'sliding_window', None)
        if kind == 'local':  # gpt_neo's, whose mask is its own
            return Window(config.window_size, False, False)
        if kind == 'chunked_attention':
            return Window(config.attention_chunk_size, True, False)
        if (
            kind != 'sliding_attention'
            or not width
            or 'sliding_window' not in ' '.join(masks)
        ):
            return None  # or a field that this family's model does not read
        if not (getattr(config, 'is_causal', True) and 'create_causal_mask' in masks):
            return Window(width + 1, False, True)
        overlay = '_bidirectional_window_overlay' in masks  # gemma3's
        return Window(
            width, False, overlay and bool(config.use_bidirectional_attention)
        )

    def settings(self, layers: Sequence[int], rotary: bool) -> dict[str, Any]:
        """Return the fields of the config by which some layers compute, for a record."""
        count, pattern = self.config.num_hidden_layers, _WITHOUT_EFFECT
        fields = json.loads(json.dumps(self.config.to_dict(), default=str))
        if not rotary:
            pattern += '|rope|rotary|partial|position'
        elif not re.search('dynamic|longrope', str(fields)):
            pattern += '|^max_position'
        return {
            name: [v[i] for i in layers]
            if isinstance(v, list) and len(v) == count
            else v
            for name, v in fields.items()
            if name not in _NOT_OF_LAYERS and not re.search(pattern, name)
        }

    def final_norm(self, dtype: torch.dtype) -> nn.Module:
        """Build the norm after the last layer, with unit gain and no bias.

        The released code of the paper builds it and never loads its weight.
        """
        norm = self._initialize(attrgetter(self.spec.final_norm)(self.skeleton))
        width = self.config.hidden_size
        gain, _ = affine_of(norm, form_of(norm, width)[2], torch.ones(1, width))
        if gain is not None and not torch.allclose(gain.float(), torch.ones(width)):
            # Nemotron's gain is 1 + w, and its w is 1 at first.
            norm.get_parameter('weight').data -= gain - 1
        return norm.to(dtype)

    def _initialize(self, module: nn.Module) -> nn.Module:
        module.to_empty(device='cpu')
        with torch.no_grad():
            module.apply(self.skeleton._init_weights)
            for part in module.modules():
                if isinstance(part, XIELUActivation):  # which no initializer covers
                    part.load_state_dict(type(part)().state_dict())
        return module


def layer_fields(config: PretrainedConfig) -> dict[str, Any]:
    """Return the fields of a config that layers may depend on."""
    return {k: v for k, v in config.to_dict().items() if k not in _NOT_OF_LAYERS}
