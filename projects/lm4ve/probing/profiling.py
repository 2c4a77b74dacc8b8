"""Builds each head once, before anything is trained: its size, and the time of a step.

Nothing but the shape of the tokens is needed, so that a study is planned before the
encoder has seen the data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lm4ve.blocks import count_parameters
from lm4ve.probing.clock import FreeClock
from lm4ve.probing.heads import (
    BATCH,
    HeadSpec,
    ProfiledHead,
    build_head,
    count_operations,
)
from lm4ve.probing.pooling import width_of
from lm4ve.probing.results import DEVICE, digest
from lm4ve.probing.training import train_head

#: The learning rate of the steps that are only timed; it changes no result.
_TIMED_RATE = 1e-3
#: Seconds in which a core fits a logistic regression, for each value of its pictures'
#: vectors and class. Measured on digits: 1,197 pictures, 1,280 channels, 10 classes.
_FIT_SECONDS = 5.0e-8


@dataclass(frozen=True)
class TokenShape:
    """What heads are built for.

    Attributes:
        tokens, channels (int): N and C of an encoder's output.
        prefix (int): How many class and register tokens come first.
        classes (int): The number of labels.
        pictures (int): How many pictures are trained on.
    """

    tokens: int
    channels: int
    prefix: int
    classes: int
    pictures: int


def profile_head(
    head: HeadSpec, shape: TokenShape, steps: int, dtype: str
) -> ProfiledHead:
    """Build a head, count its parameters and operations, and time some steps of training.

    Args:
        head (HeadSpec): The head.
        shape (TokenShape): What it is built for.
        steps (int): The number of steps to time; 0 times none.
        dtype (str): The type of the products.

    Returns:
        ProfiledHead: The head with these numbers, and with an identity that heads share
        if they compute the same with the same frozen weights.
    """
    if head.is_fitted:
        return _profile_fitted_head(head, shape)
    clock = FreeClock()
    model = build_head(head, shape.channels, shape.classes, seed=0).to(DEVICE)
    build_seconds = clock.seconds()
    step_seconds = 0.0
    if steps > 0:
        clock = FreeClock()
        train_head(model, _TIMED_RATE, steps, _noise(head, shape), dtype)
        step_seconds = clock.seconds() / steps

    pool: Any = model[0]  # a neck, or a plain or attentive mean
    block = getattr(pool, 'block', None)
    # A block's record has a fingerprint of its weights. So the place they were read
    # from and the layer's number are left out: equal weights are equal from anywhere.
    source = dict(getattr(block, 'source', {}), source='', layers=0)
    trainable, _ = count_parameters(model)
    tokens = shape.tokens if head.reads == 'tokens' else 1
    width = width_of(head.reads, shape.channels)
    return ProfiledHead(
        **vars(head),
        identity=digest([head.family, head.reads, head.width, source]),
        embed_dims=getattr(block, 'embed_dims', 0),
        trainable=trainable,
        operations=count_operations(pool, tokens, width, DEVICE),
        step_seconds=step_seconds,
        fixed_seconds=build_seconds,
    )


def _profile_fitted_head(head: HeadSpec, shape: TokenShape) -> ProfiledHead:
    """Return a head that scikit-learn fits, which is not built before its training.

    Its trained parameters are those of the classifier: none of the neighbours.
    """
    width = width_of(head.reads, shape.channels)
    trainable = 0
    if head.family == 'logreg':
        trainable = (width + 1) * shape.classes
    return ProfiledHead(
        **vars(head),
        identity=digest([head.family, head.reads]),
        trainable=trainable,
        fixed_seconds=_FIT_SECONDS * shape.pictures * width * shape.classes,
    )


def _noise(head: HeadSpec, shape: TokenShape) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of noise of the tokens' shape without end.

    Args:
        head (HeadSpec): The head that reads them.
        shape (TokenShape): The shape.
    """
    tokens = shape.tokens if head.reads == 'tokens' else 1
    width = width_of(head.reads, shape.channels)
    x = torch.randn(BATCH, tokens, width, device=DEVICE)
    labels = torch.randint(shape.classes, (BATCH,), device=DEVICE)
    while True:
        yield x, labels
