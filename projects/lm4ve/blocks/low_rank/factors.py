"""A mapper, the norm after it and the projections of that, written as matrices."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.norms import affine_of

#: The largest token before the norm's scale, which may multiply it by a thousand.
_RANGE = 16.0


class Projection(NamedTuple):
    """The projection to queries, keys or values: ``matrix @ after @ tokens + constant``.

    Attributes:
        matrix (Tensor): The projection's weight ``[rows, D]``. If ``lm4ve.fuse`` has
            multiplied it by ``after`` already, ``[rows, C]``.
        after (Tensor | None): The mapper and the norm's gain, ``[D, C]``; None if they
            are in ``matrix``.
        constant (Tensor | None): The biases of norm and projection, ``[rows]``.
    """

    matrix: Tensor
    after: Tensor | None
    constant: Tensor | None

    def fold(self) -> Tensor:
        """Return the product ``matrix @ after``, ``[rows, C]``."""
        if self.after is None:
            return self.matrix
        return self.matrix @ self.after


class Factors(NamedTuple):
    """A mapper W, the norm after it and the projections of that.

    Attributes:
        mapper (Tensor): W, ``[D, C]``, in the block's dtype.
        gram (Tensor | None): ``W'W``, ``[C, C]``, at least in fp32; for layer norm of the
            centered W. None: there is no norm.
        eps (float): The norm's epsilon; 0 without a norm.
        projections (dict[str, Projection]): For 'q', 'k' and 'v'.
    """

    mapper: Tensor
    gram: Tensor | None
    eps: float
    projections: dict[str, Projection]


def turn(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the channels before the mapper so that tokens are largest along the first.

    Both get the same reflection (Householder's), so their product stays the same. It is
    a constant for the gradients, as any reflection would be exact.

    Args:
        x (Tensor): Tokens ``[B, N, C]``, at least in fp32.
        weight (Tensor): The mapper W, ``[D, C]``, in the same dtype.

    Returns:
        tuple[Tensor, Tensor]: Tokens and mapper in the turned channels.
    """
    direction = _largest_direction(x.detach())
    first = torch.zeros_like(direction)
    first[0] = 1
    # Away from the direction, so that their sum is at least as long as each.
    first = torch.where(direction[0] < 0, -first, first)
    normal = F.normalize(direction + first, dim=0)
    return _reflect(x, normal), _reflect(weight, normal)


def _largest_direction(x: Tensor) -> Tensor:
    """Return about the direction in which tokens ``[B, N, C]`` are largest, ``[C]``.

    That is one step of the power method, from their mean. Zero without tokens.
    """
    # NaN in one sample must not reach the others.
    rows = x.flatten(0, 1).nan_to_num(0, 0, 0)
    mean = F.normalize(rows.sum(dim=0), dim=0)
    return F.normalize(rows.T @ (rows @ mean), dim=0)


def _reflect(rows: Tensor, normal: Tensor) -> Tensor:
    """Reflect vectors ``[..., C]`` at the plane with a unit normal ``[C]``."""
    along = F.linear(rows, normal[None])  # [..., 1]
    return rows - 2 * along * normal


def fit_range(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Divide channels with large values by a power of two, by which the mapper is multiplied.

    In float16 tokens beyond 65,504 would be infinite, before and after the norm's scale.

    Args:
        x (Tensor): Tokens ``[B, N, C]``, at least in fp32.
        weight (Tensor): The mapper W, ``[D, C]``, in the same dtype.

    Returns:
        tuple[Tensor, Tensor]: Tokens up to :data:`_RANGE`, and the mapper with the same product.
    """
    # NaN in one sample must not reach the others.
    peaks = x.detach().nan_to_num(0, 0, 0).abs().amax(dim=1)
    # Smaller channels stay as they are. An empty batch has this row alone.
    least = peaks.new_full((1, x.shape[-1]), _RANGE)
    largest = torch.cat((peaks, least)).amax(dim=0)
    sizes = torch.exp2(torch.log2(largest / _RANGE).ceil())
    return x / sizes, weight * sizes


def factorize(layer: LLMLayer, weight: Tensor, dtype: torch.dtype) -> Factors:
    """Write the projections of ``norm(W x)`` as factors, for the first layer of a block.

    Gradients flow to the mapper, the norm and the projections, as far as they train.

    Args:
        layer (LLMLayer): The block's first layer.
        weight (Tensor): The mapper W, ``[D, C]``, at least in fp32.
        dtype (torch.dtype): The block's dtype, in which the factors are.
    """
    # The norm before the projections: gain, bias, epsilon, and what it subtracts.
    centered = weight
    gain = None
    bias = None
    gram = None
    eps = 0.0
    if layer.norm_form is not None:
        if layer.norm_form.centered:
            centered = weight - weight.mean(dim=0)
        gram = centered.T @ centered
        eps = layer.norm_form.eps
        like = torch.empty(len(weight), dtype=dtype, device=weight.device)
        gain, bias = affine_of(layer.attention_norm, eps, like)
    after = centered
    if gain is not None:
        after = gain.to(weight.dtype)[:, None] * centered
    after = after.to(dtype)
    projections = {}
    for name in 'qkv':
        linear = unwrap(getattr(layer, f'{name}_proj'))
        constant = _constant_of(linear, bias, dtype)
        projections[name] = Projection(linear.weight, after, constant)
    return Factors(weight.to(dtype), gram, eps, projections)


def _constant_of(
    linear: Any, norm_bias: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """Return what a projection adds to every token, ``[rows]``; None: nothing.

    That is its bias, and its weight times the bias of the norm before it.

    Args:
        linear (nn.Linear): The projection.
        norm_bias (Tensor, optional): ``[D]``.
        dtype (torch.dtype): The block's dtype.
    """
    bias: Tensor | None = linear.bias
    if norm_bias is None:
        return bias
    projected: Tensor = linear.weight @ norm_bias.to(dtype)
    if bias is None:
        return projected
    return projected + bias
