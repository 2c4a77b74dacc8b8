"""What a norm computes, found by probing it: families write theirs in many ways.

Some store their gain less one, some have none, some subtract the mean. The low-rank
path (``low_rank.py``) needs all of it as numbers, and a family that it misread would be
a wrong block without any error.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.blocks.frozen import unwrap

#: What a norm computes: ``gain * (x - mean) / sqrt(mean((x - mean) ** 2) + eps) +
#: bias``. Its class, whether it subtracts the mean (which is zero here if not), and
#: eps.
NormForm = tuple[type[nn.Module], bool, float]


@torch.no_grad()
def form_of(norm: nn.Module, width: int) -> NormForm:
    """Probe what a norm does to its input.

    Args:
        norm (nn.Module): Any norm over the last dimension, frozen or not.
        width (int): Size of that dimension.
    """
    module = unwrap(norm)
    if type(module) is nn.LayerNorm:
        return nn.LayerNorm, True, module.eps
    signs = signs_like(next(module.parameters(), torch.zeros(1)), width)
    centered = bool(torch.allclose(module(signs), module(signs + 1)))
    eps: Any = getattr(
        module, 'variance_epsilon', getattr(module, 'eps', 1e-5)
    )  # olmo has none
    return type(module), centered, float(eps)


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
    there, back = module(signs).to(wide), module(-signs).to(wide)
    gain = (there - back) / 2 * signs.to(wide) * (1 + eps) ** 0.5
    has_bias = getattr(module, 'bias', None) is not None
    return gain, (there + back) / 2 if has_bias else None


def signs_like(like: Tensor, width: int) -> Tensor:
    """Return ``[1, -1, 1, -1, ...]``, whose mean is 0 for an even width."""
    signs = torch.ones(width, dtype=like.dtype, device=like.device)
    signs[1::2] = -1
    return signs
