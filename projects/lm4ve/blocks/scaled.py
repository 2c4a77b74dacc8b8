"""A control: random weights at the scale of a language model's, ``pretrained='scaled'``.

A family's own initialization has one standard deviation for all matrices, often another
than the trained weights have (LLaMA: 0.02). Where a random block does worse, the scale
may be the reason. Here each projection is drawn from a normal distribution that has the
standard deviation of the pre-trained one; those that a family stores as one weight share
one. Gains and biases are those of the family's initialization.

Scores need a factor of ``1 / sqrt(d)`` for heads of d channels, as the random control of
Borrowed Geometry (arXiv 2605.00333) has it. In most families it is in the code. In
gemma4 the trained gains of the norms of queries and keys have taken its place; a random
block with unit gains would attend to hardly more than one token.
"""

import math
import zlib
from typing import Any

import torch
from torch import Tensor

#: Digits of a standard deviation, fewer than the order of a sum can change: every
#: machine draws the same weights.
_DIGITS = 4


def is_drawn(name: str, weight: Tensor) -> bool:
    """Return whether a weight is a projection, not a gain or a bias.

    Args:
        name (str): Its name in the layer. In some families gains of norms are matrices.
        weight (Tensor): It.
    """
    return weight.dim() > 1 and 'norm' not in name


def draw_like(weight: Tensor, name: str) -> Tensor:
    """Draw normal values with the standard deviation of a pre-trained weight's.

    Args:
        weight (Tensor): The pre-trained weight.
        name (str): The values depend on it and on the seed of torch's global CPU
            generator, not on the order of weights in a file.

    Returns:
        Tensor: In fp32, in the shape of the weight.
    """
    seed = torch.default_generator.initial_seed() + zlib.crc32(name.encode())
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(weight.shape, generator=generator)
    return drawn * _deviation(weight)


def _deviation(weight: Tensor) -> float:
    """Return the standard deviation of a tensor's values, to a few digits.

    Both moments are summed in fp64 without a copy of the tensor in it.
    """
    mean = weight.float().mean(dtype=torch.float64)
    norm = torch.linalg.vector_norm(weight.float(), dtype=torch.float64)
    variance = norm.square() / weight.numel() - mean.square()
    deviation = variance.clamp(min=0).sqrt().item()
    return float(f'{deviation:.{_DIGITS}g}')


@torch.no_grad()
def scale_scores(attention: Any) -> None:
    """Give scores the factor ``1 / sqrt(d)`` by the gains of the queries' norm, in place.

    Args:
        attention (nn.Module): The library's, which multiplies scores by ``scaling``.
            The gains of its ``q_norm`` are the initial ones.
    """
    gains = attention.q_norm.weight
    factor = attention.head_dim**-0.5 / attention.scaling
    if math.isclose(factor, 1.0):
        return
    # The gains are 1 now, which some families store less one.
    gains += factor - 1.0
