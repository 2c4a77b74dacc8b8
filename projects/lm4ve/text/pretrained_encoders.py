"""Encoders of ``transformers`` from a folder, a package, the hub, or a configuration alone.

The configuration is read when a model is built, the weights only when its training
starts: tests and inferencers load a checkpoint of ours and need no other weights.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn
from transformers import AutoModel, PretrainedConfig

from lm4ve.errors import CheckpointError, UserError, check, listing
from lm4ve.llm.checkpoint import Checkpoint, open_checkpoint
from lm4ve.llm.finite import check_finite
from lm4ve.llm.foreign_config import build_foreign_config

# Sizes of a configuration; without a bound, a damaged file would fill the memory.
_SIZES = (
    *('num_hidden_layers', 'num_attention_heads', 'num_channels', 'hidden_size'),
    *(
        'intermediate_size',
        'vocab_size',
        'max_position_embeddings',
        'image_size',
        'patch_size',
    ),
)

# Fields of a configuration that do not concern the weights.
_NOT_SHAPES = (
    'architectures',
    'auto_map',
    'dtype',
    'torch_dtype',
    'transformers_version',
)


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Let errors about checkpoints name the field of the config that asked for one.

    Args:
        field (str): For example 'model.image_encoder.checkpoint'.
    """
    try:
        yield
    except UserError as e:
        raise type(e)(str(e).replace('block.checkpoint', field)) from e


def read_model_config(
    checkpoint: str | None, config: dict | None, field: str
) -> tuple[dict[str, Any], Checkpoint | None]:
    """Find the configuration of an encoder.

    Args:
        checkpoint (str, optional): See :func:`lm4ve.llm.sources.find_files`.
        config (dict, optional): Fields with ``model_type``, for an encoder without
            files.
        field (str): Where the encoder stands in the config, for messages.

    Returns:
        tuple[dict, Checkpoint | None]: The fields of the configuration and, of a
        checkpoint, its weights, which are not opened yet.

    Raises:
        CheckpointError: There is no such checkpoint, or its configuration is damaged.
        UserError: Both or neither are given, or there is no ``model_type``.
    """
    if (checkpoint is None) == (config is None):
        raise UserError(f'{field}: give exactly one of checkpoint and config.')
    files = None
    fields = dict(config or {})
    if checkpoint is not None:
        with naming(f'{field}.checkpoint'):
            files = open_checkpoint(checkpoint)
        fields = dict(files.config)
    check(f'{field}.model_type', fields.get('model_type'), kind=str)
    return fields, files


def build_config(fields: Mapping[str, Any], field: str) -> PretrainedConfig:
    """Build a configuration of ``transformers``; nothing of it names code.

    Raises:
        UserError: A size is no number, or none that a model has.
        CheckpointError: The family is unknown, or its configuration lies in another
            repository.
    """
    for key in (None, 'vision_config', 'text_config'):
        part = fields if key is None else fields.get(key) or {}
        for name in set(part).intersection(_SIZES):
            most = 1000 if name.startswith('num_') else 10_000_000
            check(f'{field}.{name}', part[name], kind=int, least=1, most=most)
    return build_foreign_config(fields, field)


def portable_fields(
    node: Mapping[str, Any], field: str, vision: bool
) -> dict[str, Any]:
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
    config = (
        getattr(config, 'vision_config', config) if vision else config.get_text_config()
    )
    fields = {
        k: v
        for k, v in config.to_dict().items()
        if k[0] != '_' and k not in _NOT_SHAPES
    }
    return dict(checkpoint=None, config=json.loads(json.dumps(fields)))


def build_bare(config: PretrainedConfig, **options: Any) -> nn.Module:
    """Build a model in fp32 with random weights, and fused attention where it has that."""
    return AutoModel.from_config(
        config, attn_implementation='sdpa', dtype=torch.float32, **options
    )


def load_weights(module: nn.Module, files: Checkpoint, field: str) -> None:
    """Load a module's weights out of a checkpoint that may hold more.

    There is no table of prefixes: the right one is the only prefix under which every
    name of the module exists.

    Args:
        module (nn.Module): Takes the weights.
        files (Checkpoint): Holds them by Hugging Face's names.
        field (str): The config's field, for messages.

    Raises:
        CheckpointError: Weights are missing, damaged or quantized.
        RuntimeError: Weights have other shapes than the configuration implies.
    """
    own = module.state_dict()
    with naming(f'{field}.checkpoint'):
        stored = _stored_names(list(own), files)
        state = {}
        for name, mine in own.items():
            weight = files.weights[stored[name]]()
            if not weight.is_floating_point():
                raise CheckpointError(
                    f"{field}.checkpoint='{files.name}' is quantized."
                )
            check_finite({stored[name]: weight}, f"{field}.checkpoint='{files.name}'")
            state[name] = weight.to(mine.dtype)
    module.load_state_dict(state, strict=True)
    print_log(
        f"{field}: weights of '{files.name}'.", logger='current', level=logging.INFO
    )


def _stored_names(wanted: list[str], files: Checkpoint) -> dict[str, str]:
    """Map a module's names to those in the files, by the one prefix that fits all."""
    stored = {}
    for name in files.weights:
        newer = name.replace(
            'LayerNorm.gamma', 'LayerNorm.weight'
        )  # of TensorFlow times
        stored[newer.replace('LayerNorm.beta', 'LayerNorm.bias')] = name
    for prefix in sorted(
        n.removesuffix(wanted[0]) for n in stored if n.endswith(wanted[0])
    ):
        if all(prefix + name in stored for name in wanted):
            return {name: stored[prefix + name] for name in wanted}
    missing = [w for w in wanted if not any(n.endswith(w) for n in stored)] or wanted
    raise CheckpointError(
        f"The weights of '{files.name}' are of another model: no {listing(missing, 3)} among "
        f'{listing(sorted(stored), 3)}.'
    )
