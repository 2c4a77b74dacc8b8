"""Averages an encoder's output to few tokens, so that small heads train in seconds."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pool_tokens(
    features: Tensor,
    most_tokens: int,
    prefix: int = 0,
    grid: Sequence[int] | None = None,
) -> Tensor:
    """Average an encoder's output to few tokens.

    Args:
        features (Tensor): A map ``[B, C, H, W]``, of clips ``[B, C, T, H, W]``, or
            tokens ``[B, N, C]``.
        most_tokens (int): The most tokens without the prefix; 0 keeps all. A map or grid
            is averaged to at most s x s places, where s is the root of ``most_tokens``
            rounded down; a sequence (clips, clouds) is averaged along its order.
        prefix (int): The number of class and register tokens, which come first and are
            kept as they are.
        grid (Sequence[int], optional): Rows and columns of the other tokens, if they
            lie in a grid.

    Returns:
        Tensor: Tokens ``[B, N', C]``.
    """
    if features.dim() == 3:
        first = features[:, :prefix]
        others = features[:, prefix:].transpose(1, 2)
        pooled = _pool_places(others, most_tokens, grid)
        return torch.cat((first, pooled.transpose(1, 2)), dim=1)
    # Maps have no class token.
    grid = features.shape[2:] if features.dim() == 4 else None
    pooled = _pool_places(features.flatten(2), most_tokens, grid)
    return pooled.transpose(1, 2).contiguous()


def _pool_places(
    places: Tensor, most_tokens: int, grid: Sequence[int] | None
) -> Tensor:
    """Average neighbouring places, to at most ``most_tokens``.

    Args:
        places (Tensor): ``[B, C, N]``.
        most_tokens (int): See :func:`pool_tokens`.
        grid (Sequence[int], optional): Rows and columns. Without them, or if they are
            not of N places, neighbours are those in the sequence.
    """
    if most_tokens == 0:
        return places
    if grid and math.prod(grid) == places.shape[2]:
        side = math.isqrt(most_tokens)
        sides = (min(side, grid[0]), min(side, grid[1]))
        places = F.adaptive_avg_pool2d(places.unflatten(2, grid), sides).flatten(2)
    if places.shape[2] > most_tokens:
        places = F.adaptive_avg_pool1d(places, most_tokens)
    return places


def read_tokens(tokens: Tensor, reads: str, prefix: int) -> Tensor:
    """Return what a head reads of an encoder's tokens.

    Args:
        tokens (Tensor): ``[B, N, C]``.
        reads (str): 'tokens': all of them. As a single token: 'class', the first one;
            'mean', that of the tokens of places; 'both', these two joined, which is what
            DINOv2's linear probe reads (arXiv 2304.07193).
        prefix (int): The number of class and register tokens, which come first.

    Returns:
        Tensor: ``[B, N, C]``, ``[B, 1, C]`` or ``[B, 1, 2 C]``.
    """
    if reads == 'tokens':
        return tokens
    class_token = tokens[:, :1]
    mean = tokens[:, prefix:].mean(1, keepdim=True)
    if reads == 'class':
        return class_token
    if reads == 'mean':
        return mean
    return torch.cat((class_token, mean), dim=2)


def width_of(reads: str, channels: int) -> int:
    """Return the channels of what :func:`read_tokens` returns for tokens of C channels."""
    if reads == 'both':
        return 2 * channels
    return channels
