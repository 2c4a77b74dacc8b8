"""Forms of a block beside the paper's; a plain block does not import this file."""

import zlib
from typing import Any

import torch
from torch import Tensor

from lm4ve.errors import UserError, check


def check_variants(
    trainable: str,
    lora: Any,
    causal: bool,
    causal_suffix: int,
    pretrained: Any,
    checkpoint: str | None,
) -> None:
    """Check fields of :class:`lm4ve.blocks.LLMBlock`, and that they go together.

    Raises:
        UserError: They do not.
    """
    check('block.pretrained', pretrained, choices=(True, False, 'permuted'))
    check('block.causal_suffix', causal_suffix, kind=int, least=0)
    if lora is not None:
        check('block.trainable with block.lora', trainable, choices=('lora',))
    if causal_suffix:
        check('block.causal with block.causal_suffix', causal, choices=(False,))
    if pretrained == 'permuted' and checkpoint is None:
        raise UserError("block.pretrained='permuted' needs weights. Fix: block.checkpoint.")


def permuted(weight: Tensor, name: str) -> Tensor:
    """Bring a matrix's elements into a random order.

    Args:
        weight (Tensor): It may have any shape; a vector stays as it is.
        name (str): The order depends on it and on the seed of torch's global CPU generator.
    """
    if weight.dim() < 2:
        return weight
    seed = torch.default_generator.initial_seed() + zlib.crc32(name.encode())
    order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(seed))
    return weight.flatten()[order].view(weight.shape)
