"""Magnitude and frequency of token activations, the paper's two measures.

Pang et al. (arXiv 2310.12973, section 5) describe frozen blocks by two numbers
a token: how far it is from the mean token, and how far the phases of its spectrum
over channels are from their mean. The pseudo-code printed there centers over rows of
the token grid only and does not wrap angles. This module centers over all tokens and
wraps angles; ``frequency(..., wrap=False)`` does not wrap them.
"""

import math

import torch
from torch import Tensor

from lm4ve.errors import UserError


def magnitude(tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """Return the distance of each token from the mean token.

    Args:
        tokens (Tensor): ``[B, N, C]``, any floating type.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding, which
            does not count for the mean.

    Returns:
        Tensor: float64 ``[B, N]``, the L2 norm over channels of token minus mean;
        0 at padding.

    Raises:
        UserError: A value is not finite.
    """
    tokens = _checked(tokens, padding_mask)
    centered = tokens - _mean(tokens, padding_mask)
    return _cleared(centered.norm(dim=-1), padding_mask)


def frequency(
    tokens: Tensor, padding_mask: Tensor | None = None, wrap: bool = True
) -> Tensor:
    """Return the distance of each token's spectral phases from their mean over tokens.

    Args:
        tokens (Tensor): ``[B, N, C]``, any floating type.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
        wrap (bool): Take the circular mean of angles, and wrap differences into
            [-pi, pi). False takes plain means and differences, as the paper's
            pseudo-code does.

    Returns:
        Tensor: float64 ``[B, N]``, the L2 norm over the C frequencies of the FFT
        over channels, in radians; 0 at padding.

    Raises:
        UserError: See :func:`magnitude`.
    """
    tokens = _checked(tokens, padding_mask)
    angles = torch.fft.fft(tokens, dim=-1).angle()
    if wrap:
        # The circular mean is the direction of the mean of unit vectors.
        directions = torch.polar(torch.ones_like(angles), angles)
        difference = angles - _mean(directions, padding_mask).angle()
        difference = torch.remainder(difference + math.pi, 2 * math.pi) - math.pi
    else:
        difference = angles - _mean(angles, padding_mask)
    return _cleared(difference.norm(dim=-1), padding_mask)


def normalize(values: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """Scale each sample's values to 0 ... 1 by its minimum and maximum.

    Args:
        values (Tensor): ``[B, N]``.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.

    Returns:
        Tensor: ``[B, N]``; 0 where all values of a sample are equal, and at padding.
    """
    # Padding must be neither the minimum nor the maximum.
    values_for_low = values
    values_for_high = values
    if padding_mask is not None:
        values_for_low = values.masked_fill(padding_mask, torch.inf)
        values_for_high = values.masked_fill(padding_mask, -torch.inf)
    low = values_for_low.amin(-1, keepdim=True)
    high = values_for_high.amax(-1, keepdim=True)
    span = high - low
    scaled = (values - low) / torch.where(span > 0, span, 1.0)
    return _cleared(scaled, padding_mask)


#: The measures by name.
MEASURES = dict(magnitude=magnitude, frequency=frequency)


def _checked(tokens: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Return tokens ``[B, N, C]`` as float64, 0 at padding; refuse values that are not finite."""
    tokens = tokens.detach().double()
    if padding_mask is not None:
        tokens = tokens.masked_fill(padding_mask[..., None], 0.0)
    if not tokens.isfinite().all():
        raise UserError(
            'The activations hold values that are not finite. Check the checkpoint; in 16 '
            "bits, try block.dtype='float32'."
        )
    return tokens


def _mean(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Return the mean over tokens, ``[B, N, C] -> [B, 1, C]``; padding does not count."""
    if padding_mask is None:
        return x.mean(dim=1, keepdim=True)
    is_token = (~padding_mask)[..., None]
    return (x * is_token).sum(dim=1, keepdim=True) / is_token.sum(dim=1, keepdim=True)


def _cleared(values: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Set values ``[B, N]`` to 0 at padding."""
    if padding_mask is None:
        return values
    return values.masked_fill(padding_mask, 0.0)
