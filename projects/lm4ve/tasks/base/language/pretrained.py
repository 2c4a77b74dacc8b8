"""Encoders of ``transformers`` from a folder, a package, the hub, or no files at all.

The configuration is read when a model is built, the weights only when its training
starts: tests and inferencers load a checkpoint of ours and need no other weights.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from lm4ve.errors import CheckpointError, UserError, brief
from lm4ve.llm.checkpoint import Checkpoint, open_checkpoint

# BERT checkpoints from TensorFlow times name LayerNorm's parameters so.
_OLD_NAMES = (('LayerNorm.weight', 'LayerNorm.gamma'), ('LayerNorm.bias', 'LayerNorm.beta'))

# The largest sizes that an encoder may have, far beyond those of released ones.
_LARGEST = dict(
    num_hidden_layers=1000,
    num_attention_heads=1000,
    hidden_size=100_000,
    intermediate_size=1_000_000,
    vocab_size=10_000_000,
    max_position_embeddings=10_000_000,
    image_size=10_000,
    patch_size=1000,
    num_channels=100,
    type_vocab_size=1000,
)

# Fields of a configuration that say nothing of the weights.
_NOT_SHAPES = ('architectures', 'auto_map', 'dtype', 'torch_dtype', 'transformers_version')


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Let errors about checkpoints name the field of the config that asked for one.

    Args:
        field (str): For example 'model.image_encoder.checkpoint'.
    """
    try:
        yield
    except CheckpointError as e:
        text = re.sub(r'(model\.neck\.)?\bblock\.checkpoint\b', field, str(e))
        raise CheckpointError(text) from e


def read_model_config(
    checkpoint: str | None, config: dict | None, field: str
) -> tuple[dict[str, Any], Checkpoint | None]:
    """Find the configuration of an encoder.

    Args:
        checkpoint (str, optional): See :func:`lm4ve.llm.sources.find_files`.
        config (dict, optional): Fields with ``model_type``, for an encoder without files.
        field (str): Where the encoder stands in the config, for messages.

    Returns:
        tuple[dict, Checkpoint | None]: The fields of the configuration and, of a
        checkpoint, its weights, which are not opened yet.

    Raises:
        CheckpointError: There is no such checkpoint, or its configuration is damaged.
        UserError: Both or neither are given, or there is no ``model_type``.
    """
    if (checkpoint is None) == (config is None):
        raise UserError(
            f'{field}.checkpoint={checkpoint!r} and {field}.config={config!r}: give exactly one. '
            'Fix: a checkpoint (a local folder, package:<name> or a hub id) for a pre-trained '
            'encoder; config=dict(model_type=..., ...) for a random one.'
        )
    files = None
    if checkpoint is not None:
        with naming(f'{field}.checkpoint'):
            files = open_checkpoint(checkpoint)
        config = files.config
    if not isinstance(config.get('model_type'), str):
        raise UserError(
            f"{field} has no model_type, the name of the model's family in transformers. Fix: "
            'use the config.json that was released beside the weights, or config=dict(model_type='
            "'roberta', ...)."
        )
    return dict(config), files


def build_config(fields: Mapping[str, Any], field: str) -> PretrainedConfig:
    """Build a configuration of ``transformers``; nothing of it names code.

    Raises:
        UserError: The family is unknown, or a field is impossible.
    """
    kind = fields['model_type']
    plain = {k: v for k, v in fields.items() if k not in ('model_type', 'auto_map')}
    for part in (fields, *(fields.get(k) for k in ('vision_config', 'text_config'))):
        _check_sizes(part if isinstance(part, Mapping) else {}, field)
    try:
        return AutoConfig.for_model(kind, **plain)
    except Exception as e:  # transformers raises many kinds about impossible fields
        reason = ' '.join(str(e).split())
        raise UserError(
            f"{field} is not the configuration of a '{kind}' model ({type(e).__name__}: {reason}). "
            "Fix: correct the field, or copy the model's config.json again."
        ) from e


def _check_sizes(fields: Mapping[str, Any], field: str) -> None:
    """Refuse sizes that are no numbers, or that no model has: they would fill the memory.

    Raises:
        UserError: It names the field.
    """
    for name, largest in _LARGEST.items():
        value = fields.get(name)
        if name in fields and (type(value) is not int or not 0 < value <= largest):
            raise UserError(
                f'{field} has {name}={brief(value)}, expected a whole number from 1 to {largest}. '
                "Fix: correct the field, or copy the model's config.json again."
            )


def portable_fields(node: Mapping[str, Any], field: str, vision: bool) -> dict[str, Any]:
    """Describe an encoder in plain data, so that a release needs none of its files.

    Args:
        node (Mapping): The encoder's config.
        field (str): Where it stands, for messages.
        vision (bool): Of a model of images and texts, take the half for images.

    Returns:
        dict: What to change: random weights of the same shape, to be loaded over.
    """
    if not isinstance(node.get('checkpoint'), str):
        return {}
    config = build_config(read_model_config(node['checkpoint'], None, field)[0], field)
    config = getattr(config, 'vision_config', config) if vision else config.get_text_config()
    fields = {k: v for k, v in config.to_dict().items() if k[0] != '_' and k not in _NOT_SHAPES}
    return dict(checkpoint=None, config=json.loads(json.dumps(fields)))


def build_bare(config: PretrainedConfig, field: str, **options: Any) -> nn.Module:
    """Build a model in fp32 with random weights, and fused attention where it has that.

    Raises:
        UserError: Its fields do not fit each other.
    """
    try:
        return AutoModel.from_config(
            config, attn_implementation='sdpa', dtype=torch.float32, **options
        )
    except Exception as e:  # transformers raises many kinds about impossible fields
        reason = ' '.join(str(e).split())
        raise UserError(
            f"{field}: no '{config.model_type}' model can be built of this configuration "
            f"({type(e).__name__}: {reason}). Fix: copy the model's config.json again."
        ) from e


def load_weights(
    module: nn.Module,
    files: Checkpoint,
    field: str,
    adapt: Callable[[str, Tensor, Tensor], Tensor] | None = None,
) -> None:
    """Load a module's weights out of a checkpoint that may hold more.

    There is no table of prefixes: the right one is the only prefix under which every
    name of the module exists.

    Args:
        module (nn.Module): Takes the weights.
        files (Checkpoint): Holds them by Hugging Face's names.
        field (str): The config's field, for messages.
        adapt (callable, optional): ``(name, stored, own) -> tensor``, for a tensor whose
            shape differs.

    Raises:
        CheckpointError: Weights are missing, damaged or of other shapes. Nothing was
            loaded then.
    """
    own = module.state_dict()
    with naming(f'{field}.checkpoint'):
        stored = _stored_names(list(own), set(files.weights.names()), files, field)
        state = {}
        for name, mine in own.items():
            weight = files.weights.read(stored[name])
            if weight.shape != mine.shape and adapt is not None:
                weight = adapt(name, weight.float(), mine)
            if weight.shape != mine.shape:
                raise CheckpointError(
                    f"'{stored[name]}' of {field}.checkpoint='{files.name}' has the shape "
                    f'{list(weight.shape)}, but its config.json implies {list(mine.shape)}. Fix: '
                    'config and weights are of different models; copy both from the same release.'
                )
            if not weight.is_floating_point():
                raise CheckpointError(
                    f"'{stored[name]}' of {field}.checkpoint='{files.name}' is stored as "
                    f"{weight.dtype}. Fix: use the model's original weights, not quantized ones."
                )
            state[name] = weight.to(mine.dtype, copy=True)
    with torch.no_grad():
        module.load_state_dict(state, strict=True)
    print_log(f"{field}: weights of '{files.name}'.", logger='current', level=logging.INFO)


def _stored_names(
    wanted: list[str], names: set[str], files: Checkpoint, field: str
) -> dict[str, str]:
    """Map a module's names to those in the files."""
    prefixes = sorted({n[: -len(wanted[0])] for n in names if n.endswith(wanted[0])})
    for prefix in prefixes:
        found = {w: _spelled(prefix + w, names) for w in wanted}
        if all(found.values()):
            return found
    missing = [w for w in wanted if not any(n.endswith(w) for n in names)] or wanted
    raise CheckpointError(
        f"{field}.checkpoint='{files.name}' says model_type '{files.config['model_type']}', but "
        f'its weights are not those of such an encoder: {", ".join(missing[:3])} and more were '
        f'not found among {", ".join(sorted(names)[:3]) or "no tensors"}, ... Fix: use a '
        "checkpoint that transformers' own classes load."
    )


def _spelled(name: str, names: set[str]) -> str | None:
    if name in names:
        return name
    for new, old in _OLD_NAMES:
        if name.endswith(new) and (older := name[: -len(new)] + old) in names:
            return older
    return None
