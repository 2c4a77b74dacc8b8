"""Builds each head once, before anything is trained: its size and its identity."""

from dataclasses import dataclass
from typing import Any

from lm4ve.blocks import count_parameters
from lm4ve.runner.devices import find_device
from lm4ve.study.heads.head import (
    HeadSpec,
    ProfiledHead,
    build_head,
    count_operations,
)
from lm4ve.study.job import digest
from lm4ve.study.tokens.pooling import width_of


@dataclass(frozen=True)
class TokenShape:
    """What heads are built for.

    Attributes:
        tokens, channels (int): N and C of an encoder's output.
        has_class_token (bool): Whether the first token is a class token.
        classes (int): The number of labels.
    """

    tokens: int
    channels: int
    has_class_token: bool
    classes: int


def profile_head(head: HeadSpec, shape: TokenShape) -> ProfiledHead:
    """Build a head, and count its parameters and operations.

    Args:
        head (HeadSpec): The head.
        shape (TokenShape): What it is built for.

    Returns:
        ProfiledHead: The head with these numbers, and with an identity that heads share
        if they compute the same with the same frozen weights.
    """
    width = width_of(head.reads, shape.channels)
    if head.is_fitted:
        # It is not built before its training. Nearest neighbours train nothing.
        trainable = (width + 1) * shape.classes if head.family == 'logreg' else 0
        identity = digest([head.family, head.reads])
        return ProfiledHead(**vars(head), identity=identity, trainable=trainable)
    device = find_device(None)
    model = build_head(head, shape.channels, shape.classes, seed=0).to(device)
    pool: Any = model[0]  # a neck, or a plain or attentive mean
    block = getattr(pool, 'block', None)
    # A block's record has a fingerprint of its weights. So the place they were read
    # from and the layer's number are left out: equal weights are equal from anywhere.
    source = dict(getattr(block, 'source', {}), source='', layers=0)
    trainable, _ = count_parameters(model)
    tokens = shape.tokens if head.reads == 'tokens' else 1
    return ProfiledHead(
        **vars(head),
        identity=digest([head.family, head.reads, head.width, source]),
        embed_dims=getattr(block, 'embed_dims', 0),
        trainable=trainable,
        operations=count_operations(pool, tokens, width, device),
    )
