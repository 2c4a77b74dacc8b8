"""Encoders of transformers: a folder's or a hub repository's.

Its files are read as a block's are, by name: nothing in them leads to another place.
"""

import inspect
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.checkpoint import Checkpoint, open_checkpoint
from lm4ve.llm.foreign_config import build_foreign_config, offline
from lm4ve.llm.sources import find_files
from lm4ve.study.tokens.encoders.encoder import (
    WITHOUT_NETWORK,
    EncoderParts,
    FrozenModel,
)
from lm4ve.study.tokens.encoders.strict_loading import (
    load_pretrained,
    require_after_features,
)
from lm4ve.text.pretrained_encoders import naming

#: What a folder of transformers may hold beside its weights; the first one is needed.
_CONFIGURATIONS = ('config.json', 'preprocessor_config.json', 'processor_config.json')


def load_transformers(name: str, is_published: bool, size: int | None) -> EncoderParts:
    """Build an encoder of ``transformers``, whose features are its last hidden states.

    Args:
        name (str): A folder, or an id of the hub.
        is_published (bool): Load the weights that lie there.
        size (int, optional): Pixels a side. Default: the processor's.

    Raises:
        UserError: There is no such model, or the order of its tokens is unknown.
        CheckpointError: Weights are missing, damaged, or not of the configuration.
    """
    from transformers import AutoImageProcessor, AutoModel

    folder = _fetch_configurations(name)
    with naming('ENCODER'):
        files = open_checkpoint(name)
    origin = str(files.config_file)
    config = build_foreign_config(files.config, origin)
    lacking: list[str] = []
    with offline(origin):
        with torch.device('meta'):
            model_class = type(AutoModel.from_config(config))
        if is_published:
            model, lacking = _load_weights(model_class, config, files)
        else:
            model = AutoModel.from_config(config)
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    model.eval()
    # Models such as CLIP have a half for texts, which is not needed.
    visual: Any = getattr(model, 'vision_model', model)

    transform = _build_transform(processor, size)
    parts = EncoderParts(
        module=_freeze(model, visual, size),
        transform=transform,
        # The configuration too: the number of heads, for one, is in no tensor's shape.
        facts=f'{transform!r}{model.config.to_json_string()}',
    )
    require_after_features(model, lacking, f"'{files.name}'")
    if hasattr(visual, 'timm_model') or hasattr(visual.config, 'num_detection_tokens'):
        raise UserError(
            f"Tokens of '{name}' have an unknown order. Fix: timm/NAME, if there is."
        )
    return EncoderParts(
        parts.module, parts.transform, parts.facts, _count_prefix(parts, visual.config)
    )


def _fetch_configurations(name: str) -> Path:
    """Return the local folder of a model's configurations, downloaded if it is on the hub.

    Args:
        name (str): A folder, or an id of the hub.

    Raises:
        UserError: There is no such folder, and the hub cannot be read.
    """
    try:
        with naming('ENCODER'):
            source, _ = find_files(name)
            # All of them, so that each is downloaded.
            files = [source.find(file) for file in _CONFIGURATIONS]
    except CheckpointError as e:
        raise UserError(f'{e} {WITHOUT_NETWORK}') from e
    config_file = files[0]
    if config_file is None:
        raise UserError(f"The encoder '{name}' has no config.json of transformers.")
    return config_file.parent


def _load_weights(
    model_class: type[Any], config: Any, files: Checkpoint
) -> tuple[Any, list[str]]:
    """Build a model with the weights of its files; see :func:`load_pretrained`.

    Args:
        model_class (type): The model's class.
        config (PretrainedConfig): Its configuration.
        files (Checkpoint): Its files.

    Returns:
        tuple[nn.Module, list[str]]: The model, and the names of the tensors that the
        files lack.

    Raises:
        CheckpointError: Files are missing, damaged or quantized, or have unknown
            tensors.
    """
    if getattr(config, 'quantization_config', None):
        raise CheckpointError(
            f"'{files.name}' is quantized. Fix: use the original weights."
        )
    with naming('ENCODER'):
        # Copies, since tensors that are mapped from a file change with the file.
        state = {name: read().clone() for name, read in files.weights.items()}
    return load_pretrained(model_class, config, state, f"'{files.name}'")


def _build_transform(processor: Any, size: int | None) -> Any:
    """Return a transform that turns a picture into the model's input, ``[3, H, W]``.

    Args:
        processor (BaseImageProcessor): The model's image processor.
        size (int, optional): Pixels a side. Default: the processor's.
    """
    sizes = {}
    if size is not None:
        sizes = dict(size=size, crop_size=size)
    process = partial(processor, return_tensors='pt', **sizes)
    return transforms.Compose([process, itemgetter('pixel_values'), itemgetter(0)])


def _freeze(model: nn.Module, visual: Any, size: int | None) -> FrozenModel:
    """Wrap a model in a module that returns the last hidden states of its visual part.

    Args:
        model (nn.Module): The whole model, whose weights are in the fingerprint.
        visual (nn.Module): The model, or its part for pictures.
        size (int, optional): Pixels a side, if not the model's own.
    """
    options = {}
    arguments = inspect.signature(visual.forward).parameters
    if size is not None and 'interpolate_pos_encoding' in arguments:
        # The model resamples its position embeddings to another size.
        options['interpolate_pos_encoding'] = True

    def run(_: Any, pictures: Any) -> Any:
        return visual(pixel_values=pictures, **options).last_hidden_state

    return FrozenModel(model, run)


def _count_prefix(parts: EncoderParts, config: Any) -> int:
    """Return the number of class and register tokens, which come before the patches.

    It is the number of tokens of a picture minus that of its patches; 0 for maps, and
    for models whose configuration has no patch size.

    Args:
        parts (EncoderParts): The encoder.
        config (PretrainedConfig): The configuration of its visual part.
    """
    features = parts.features_of_noise()
    patch = getattr(config, 'patch_size', None)
    if features.dim() != 3 or not isinstance(patch, int):
        return 0
    height, width = parts.transform(Image.new('RGB', (256, 256))).shape[1:]
    patches = (height // patch) * (width // patch)
    return max(features.shape[1] - patches, 0)  # below 0: layers merge patches
