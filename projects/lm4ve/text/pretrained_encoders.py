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

#: Counts of a configuration. Without a bound, a damaged file would fill the memory.
_COUNTS = ('num_hidden_layers', 'num_attention_heads', 'num_channels')
_MOST_COUNT = 1000
#: Sizes of a configuration, likewise.
_SIZES = (
    'hidden_size',
    'intermediate_size',
    'vocab_size',
    'max_position_embeddings',
    'image_size',
    'patch_size',
)
_MOST_SIZE = 10_000_000

#: Fields of a configuration that do not concern the weights.
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
    except UserError as error:
        message = str(error).replace('block.checkpoint', field)
        raise type(error)(message) from error


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
    if checkpoint is None:
        files = None
        fields = dict(config or {})
    else:
        with naming(f'{field}.checkpoint'):
            files = open_checkpoint(checkpoint)
        fields = dict(files.config)
    check(f'{field}.model_type', fields.get('model_type'), kind=str)
    return fields, files


def build_config(fields: Mapping[str, Any], field: str) -> PretrainedConfig:
    """Build a configuration of ``transformers`` from fields that a file may have damaged.

    Sizes are checked first. The class is one of ``transformers`` itself, which
    :func:`lm4ve.llm.foreign_config.build_foreign_config` sees to: code that the fields
    name is not run.

    Args:
        fields (Mapping[str, Any]): The content of a ``config.json``.
        field (str): Where the encoder stands in the config, for messages.

    Raises:
        UserError: A size is no number, or none that a model has.
        CheckpointError: The family is unknown, or its configuration lies in another
            repository.
    """
    _check_sizes(fields, field)
    # A model of images and texts has a configuration for either half.
    for name in ('vision_config', 'text_config'):
        fields_of_half = fields.get(name)
        if isinstance(fields_of_half, Mapping):
            _check_sizes(fields_of_half, field)
    return build_foreign_config(fields, field)


def _check_sizes(fields: Mapping[str, Any], field: str) -> None:
    """Refuse counts and sizes that no model has."""
    for name, value in fields.items():
        if name in _COUNTS:
            check(f'{field}.{name}', value, kind=int, least=1, most=_MOST_COUNT)
        elif name in _SIZES:
            check(f'{field}.{name}', value, kind=int, least=1, most=_MOST_SIZE)


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
    all_fields, _ = read_model_config(node['checkpoint'], None, field)
    config = build_config(all_fields, field)
    if vision:
        config = getattr(config, 'vision_config', config)
    else:
        config = config.get_text_config()
    fields = {}
    for name, value in config.to_dict().items():
        if not name.startswith('_') and name not in _NOT_SHAPES:
            fields[name] = value
    # Through JSON, so that tuples are lists as in a file.
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
    random_weights = module.state_dict()
    origin = f"{field}.checkpoint='{files.name}'"
    state = {}
    with naming(f'{field}.checkpoint'):
        for name, stored_name in _stored_names(list(random_weights), files).items():
            weight = files.weights[stored_name]()
            if not weight.is_floating_point():
                raise CheckpointError(f'{origin} is quantized.')
            check_finite({stored_name: weight}, origin)
            state[name] = weight.to(random_weights[name].dtype)
    module.load_state_dict(state, strict=True)
    print_log(
        f"{field}: weights of '{files.name}'.", logger='current', level=logging.INFO
    )


def _stored_names(wanted: list[str], files: Checkpoint) -> dict[str, str]:
    """Map a module's names to those in the files, by the one prefix that fits all.

    Args:
        wanted (list[str]): The module's names, at least one.
        files (Checkpoint): Its weights have the same names behind some prefix.

    Returns:
        dict[str, str]: Name in the module -> name in the files.

    Raises:
        CheckpointError: There is no such prefix.
    """
    stored = {}
    for name in files.weights:
        # Files from TensorFlow call the parameters of a norm gamma and beta.
        current = name.replace('LayerNorm.gamma', 'LayerNorm.weight')
        current = current.replace('LayerNorm.beta', 'LayerNorm.bias')
        stored[current] = name
    prefixes = []
    for name in stored:
        if name.endswith(wanted[0]):
            prefixes.append(name.removesuffix(wanted[0]))
    for prefix in sorted(prefixes):
        if all(prefix + name in stored for name in wanted):
            return {name: stored[prefix + name] for name in wanted}
    missing = []
    for name in wanted:
        if not any(stored_name.endswith(name) for stored_name in stored):
            missing.append(name)
    if not missing:
        # All names are there, but not under one prefix.
        missing = wanted
    raise CheckpointError(
        f"The weights of '{files.name}' are of another model: no {listing(missing, 3)} among "
        f'{listing(sorted(stored), 3)}.'
    )
