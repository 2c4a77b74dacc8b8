"""Finds the library that a name means, and loads the encoder."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from lm4ve.analysis.loading import UNTRAINED
from lm4ve.errors import UserError
from lm4ve.llm.fingerprint import fingerprint
from lm4ve.runner.checkpoint_files import read_state
from lm4ve.study.tokens.encoders.config_models import load_config_model
from lm4ve.study.tokens.encoders.encoder import (
    WITHOUT_NETWORK,
    Encoder,
    EncoderParts,
    has_class_token,
)
from lm4ve.study.tokens.encoders.strict_loading import load_encoder_state
from lm4ve.study.tokens.encoders.timm_models import load_packaged, load_timm
from lm4ve.study.tokens.encoders.torchvision_models import load_torchvision
from lm4ve.study.tokens.encoders.transformers_models import load_transformers

#: The first part of a name -> what loads the rest of it, with published weights or
#: without, for pictures of a size.
_LIBRARIES: dict[str, Callable[[str, bool, int | None], EncoderParts]] = {
    'timm': load_timm,
    'package': load_packaged,
    'transformers': load_transformers,
    'torchvision': load_torchvision,
}


def load_encoder(
    name: str, checkpoint: str | None = None, size: int | None = None
) -> Encoder:
    """Load a frozen encoder.

    Args:
        name (str): ``timm/NAME`` (the output of ``forward_features``),
            ``transformers/ID`` or a local Hugging Face folder (the last hidden state;
            of CLIP and its like that of the vision model), ``torchvision/NAME`` (what
            its pooling gets, or the tokens of ViT), ``package:efficientnet-lite0``, or
            the file or name of a config (its backbone). Weights of the first three are
            the published ones, from the hub or its cache.
        checkpoint (str, optional): Weights instead of the published ones, or of the
            config's model; 'none': untrained.
        size (int, optional): Pixels a side. Default: the encoder's own transform.

    Raises:
        UserError: There is no such encoder, or it cannot be downloaded.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another
            model.
    """
    library, rest = _split_name(name)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # decides untrained weights
            if library in _LIBRARIES:
                parts = _load_of_library(library, rest, checkpoint, size)
            else:
                parts = load_config_model(name, checkpoint, size)
    except UserError:
        raise
    except Exception as e:
        # Libraries raise anything, for a name that they lack or without a network.
        cause = ' '.join(str(e).split())[:200]
        if not cause:
            cause = type(e).__name__
        raise UserError(
            f"The encoder '{name}' cannot be loaded ({cause}). {WITHOUT_NETWORK}"
        ) from e
    module = parts.module.eval().requires_grad_(False)
    facts = f'{fingerprint(module.state_dict().items())}{module!r}{parts.facts}'
    return Encoder(
        name=name,
        module=module,
        transform=parts.transform,
        fingerprint=hashlib.sha256(facts.encode()).hexdigest(),
        prefix=parts.prefix,
        has_class_token=parts.prefix > 0 and has_class_token(module),
        kind=parts.kind,
    )


def _split_name(name: str) -> tuple[str, str]:
    """Return the library that an encoder's name begins with, and the rest of the name.

    The library of a folder is 'transformers', and its rest the whole name. For a config,
    the first word is the part before the first slash, which is no key of
    :data:`_LIBRARIES`.
    """
    folder = Path(name)
    if (folder / 'config.json').is_file():
        return 'transformers', name
    spelling = name.replace('package:', 'package/', 1)
    library, _, rest = spelling.partition('/')
    if library not in _LIBRARIES and folder.is_dir():
        return 'transformers', name
    return library, rest


def _load_of_library(
    library: str, name: str, checkpoint: str | None, size: int | None
) -> EncoderParts:
    """Load an encoder of a library, with published weights, a checkpoint's or none.

    Args:
        library (str): A key of :data:`_LIBRARIES`.
        name (str): The library's name of the encoder.
        checkpoint (str, optional): None: the published weights; 'none' or '-':
            untrained; else a file.
        size (int, optional): Pixels a side.
    """
    is_published = checkpoint is None
    parts = _LIBRARIES[library](name, is_published, size)
    if checkpoint is not None and checkpoint not in UNTRAINED:
        model = parts.module.get_submodule('model')
        state = read_state(checkpoint)
        load_encoder_state(model, state, f"'{checkpoint}'")
    return parts
