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
from lm4ve.probing.pooling import read_tokens, width_of
from lm4ve.probing.results import digest
from lm4ve.probing.training import train_head
from lm4ve.runner.devices import find_device

#: The learning rate of the steps that are only timed; it changes no result.
_TIMED_RATE = 1e-3
_STEPS_TO_WARM_UP = 2
#: Seconds in which a core fits a logistic regression, for each value of its pictures'
#: vectors and class. Measured on digits: 1,197 pictures, 1,280 channels, 10 classes.
_FIT_SECONDS = 5.0e-8
#: The same for the neighbours, for each pair of pictures and channel.
_NEIGHBOUR_SECONDS = 1.0e-10


@dataclass(frozen=True)
class TokenShape:
    """What heads are built for.

    Attributes:
        tokens, channels (int): N and C of an encoder's output.
        prefix (int): How many class and register tokens come first.
        has_class_token (bool): Whether the first of them is a class token.
        classes (int): The number of labels.
        pictures (int): How many pictures are trained on.
    """

    tokens: int
    channels: int
    prefix: int
    has_class_token: bool
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
    device = find_device(None)
    torch.zeros(1, device=device)  # what a device does once is no part of a head
    clock = FreeClock()
    model = build_head(head, shape.channels, shape.classes, seed=0).to(device)
    build_seconds = clock.seconds()
    step_seconds = 0.0
    waiting = 1.0
    if steps > 0:
        # The first steps choose kernels and allocate memory.
        train_head(model, _TIMED_RATE, _STEPS_TO_WARM_UP, _noise(head, shape), dtype)
        clock = FreeClock()
        train_head(model, _TIMED_RATE, steps, _noise(head, shape), dtype)
        step_seconds = clock.seconds() / steps
        waiting = clock.waiting()

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
        operations=count_operations(pool, tokens, width, device),
        step_seconds=step_seconds,
        waiting=waiting,
        fixed_seconds=build_seconds,
    )


def _profile_fitted_head(head: HeadSpec, shape: TokenShape) -> ProfiledHead:
    """Return a head that scikit-learn fits, which is not built before its training.

    Its trained parameters are those of the classifier: none of the neighbours.
    """
    width = width_of(head.reads, shape.channels)
    trainable = 0
    seconds = _NEIGHBOUR_SECONDS * shape.pictures**2 * width
    if head.family == 'logreg':
        trainable = (width + 1) * shape.classes
        seconds = _FIT_SECONDS * shape.pictures * width * shape.classes
    return ProfiledHead(
        **vars(head),
        identity=digest([head.family, head.reads]),
        trainable=trainable,
        fixed_seconds=seconds,
    )


def _noise(head: HeadSpec, shape: TokenShape) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of noise without end, read as those of a training are.

    Args:
        head (HeadSpec): The head that reads them.
        shape (TokenShape): The shape.
    """
    stored = torch.randn(BATCH, shape.tokens, shape.channels).half()
    device = find_device(None)
    labels = torch.randint(shape.classes, (BATCH,), device=device)
    while True:
        tokens = stored.clone().to(device).float().sub_(0.0).div_(1.0)
        yield read_tokens(tokens, head.reads, shape.prefix), labels
