"""What a norm computes: the low-rank path (``low_rank/``) needs it as numbers.

The gain is found by probing, since families write theirs in many ways: some store it
less one, some have none. A family that was misread would be a wrong block without any
error.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm4ve.blocks.frozen import unwrap


class NormForm(NamedTuple):
    """A norm: ``gain * (x - mean) / sqrt(mean((x - mean) ** 2) + eps) + bias``.

    Attributes:
        kind (type): Its class.
        centered (bool): It subtracts the mean, which is zero in the formula if not.
        eps (float): The number under the root.
    """

    kind: type[nn.Module]
    centered: bool
    eps: float


def form_of(norm: nn.Module) -> NormForm:
    """Describe a norm over channels, frozen or not.

    Of the norms in families with a layer spec, ``nn.LayerNorm`` alone subtracts the mean.
    ``tests/blocks/test_both_layers.py`` compares each family with the library's layer.
    """
    module = unwrap(norm)
    is_layer_norm = isinstance(module, nn.LayerNorm)
    return NormForm(type(module), centered=is_layer_norm, eps=_eps_of(module))


def _eps_of(norm: Any) -> float:
    """Return a norm's epsilon, which families call by two names; olmo's has none."""
    if hasattr(norm, 'variance_epsilon'):
        return float(norm.variance_epsilon)
    return float(getattr(norm, 'eps', 1e-5))


def affine_of(
    norm: nn.Module, eps: float, like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return gain and bias of a norm, each ``[D]`` or None; gradients flow to its parameters.

    Args:
        norm (nn.Module): A norm over D channels.
        eps (float): Its epsilon.
        like (Tensor): A tensor ``[..., D]`` of any values, on the device and in the
            dtype to compute in.
    """
    module = unwrap(norm)
    if type(module) is nn.LayerNorm:
        return module.weight, module.bias
    # Signs have mean 0 and mean square 1, so the norm of them is its gain, up to eps.
    signs = signs_like(like, like.shape[-1])
    wide = torch.promote_types(like.dtype, torch.float32)
    there = module(signs).to(wide)
    back = module(-signs).to(wide)
    gain = (there - back) / 2 * signs.to(wide) * (1 + eps) ** 0.5
    if getattr(module, 'bias', None) is None:
        return gain, None
    return gain, (there + back) / 2


def signs_like(like: Tensor, width: int) -> Tensor:
    """Return ``[1, -1, 1, -1, ...]``, whose mean is 0 for an even width."""
    signs = torch.ones(width, dtype=like.dtype, device=like.device)
    signs[1::2] = -1
    return signs
