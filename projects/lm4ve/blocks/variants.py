"""Forms of a block beside the paper's; a plain block does not import this file."""

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lm4ve.errors import UserError, build_from, check, require


def check_variants(
    trainable: str,
    lora: Any,
    causal: Any,
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
        require(
            trainable == 'lora',
            f"block.trainable='{trainable}' with block.lora would train no adapter. Fix: "
            "block.trainable='lora', or leave block.lora out.",
        )
    if causal_suffix:
        require(
            causal is False,
            f'block.causal={causal} with block.causal_suffix={causal_suffix}: the first masks all '
            'tokens, the second only the last ones. Fix: leave one of them out.',
        )
    if pretrained == 'permuted' and checkpoint is None:
        raise UserError(
            "block.pretrained='permuted' needs weights. Fix: block.checkpoint."
        )


def _end_of(soft: float) -> float:
    """Return the only field of ``causal``."""
    return soft


class SoftMask:
    """A causal mask that closes while the model trains (iLLaMA, arXiv 2404.06773).

    A later token's attention weight is multiplied, after softmax, by a factor that
    falls linearly from 1 to 0; in evaluation it is 0. What remains is not scaled to a
    sum of 1.

    Args:
        fields (Mapping): ``soft``, the part of training after which the factor is 0.

    Attributes:
        progress (float | None): How far training has come, in [0, 1].

    Raises:
        UserError: A field is wrong.
    """

    def __init__(self, fields: Mapping[str, float]) -> None:
        check('block.causal', fields, kind=(bool, dict))
        self.end = build_from(_end_of, fields, 'block.causal')
        check('block.causal.soft', self.end, kind=(int, float), above=0, most=1)
        self.progress = None

    def __call__(self, seen: Tensor, real: Tensor | None, training: bool) -> Tensor:
        """Return the factors.

        Args:
            seen (Tensor): Bool, broadcastable to ``[B, H, Q, N]``, of the causal mask.
            real (Tensor, optional): Must be None: with padding, what softmax sums is
                unclear.
            training (bool): Else the mask is closed.

        Raises:
            UserError: There is padding, or a training step without progress.
        """
        if real is not None:
            raise UserError(
                'block.causal=dict(soft=...) takes no padding. Fix: block.causal=True.'
            )
        if training and self.progress is None:
            raise UserError(
                'block.causal=dict(soft=...) needs lm4ve.NeckProgressHook in custom_hooks, or '
                'neck.set_progress(step / steps) before each step.'
            )
        factor = max(0.0, 1 - (self.progress or 0) / self.end) if training else 0.0
        return seen + ~seen * factor


def permuted(weight: Tensor, name: str) -> Tensor:
    """Bring a matrix's elements into a random order.

    Args:
        weight (Tensor): It may have any shape; a vector stays as it is.
        name (str): The order depends on it and on the seed of torch's global CPU
            generator.
    """
    if weight.dim() < 2:
        return weight
    seed = torch.default_generator.initial_seed() + zlib.crc32(name.encode())
    order = torch.randperm(
        weight.numel(), generator=torch.Generator().manual_seed(seed)
    )
    return weight.flatten()[order].view(weight.shape)
