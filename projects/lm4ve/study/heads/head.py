"""What is trained on an encoder's tokens: probes, blocks, and controls of the same size.

All heads have the same final norm and classifier::

    tokens [B, N, C] -> (mapper -> block -> mapper) -> mean -> LayerNorm -> Linear -> logits

A linear probe reads the class token, the mean of the others, or both, as one token.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.model import initialize
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lm4ve.blocks import LLMBlock, MLPBlock
from lm4ve.blocks.controls import AttentionBlock
from lm4ve.necks import LLMBlockNeck
from lm4ve.study.tokens.pooling import width_of

#: Samples of a step; operations are counted for as many, since folding depends on their
#: number.
BATCH = 64
#: Attention heads of the probe and of the trained layer, whose width is a multiple of
#: it.
ATTENTION_HEADS = 8
#: Families that scikit-learn fits (:mod:`lm4ve.study.heads.baselines`).
FITTED_FAMILIES = ('logreg', 'knn')
#: Family -> the layer that trains in the place of a language model's.
TRAINED_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    'attention': AttentionBlock,
    'mlp': MLPBlock,
}


@dataclass(frozen=True)
class HeadSpec:
    """A head to train, which reports call a variant.

    Attributes:
        name (str): Its name in tables.
        family (str): One of :data:`lm4ve.study.heads.candidates.FAMILIES`.
        words (str): Its name in sentences.
        block (Mapping): Arguments of :class:`lm4ve.blocks.LLMBlock`; empty if the head
            has no block.
        width (int): The width of the layer that trains in a block's place; 0 if the head
            has none.
        reads (str): What it gets of an encoder's tokens, see
            :func:`lm4ve.study.tokens.pooling.read_tokens`.
    """

    name: str
    family: str
    words: str
    block: Mapping[str, Any] = field(default_factory=dict)
    width: int = 0
    reads: str = 'tokens'

    @property
    def is_fitted(self) -> bool:
        """True for a classifier of scikit-learn, which is not trained in steps."""
        return self.family in FITTED_FAMILIES


@dataclass(frozen=True)
class ProfiledHead(HeadSpec):
    """A head that was built once, with its size and its cost.

    Attributes:
        identity (str): Hex digits that identify the computation and the frozen weights.
        embed_dims (int): D of its block; 0 without one.
        trainable (int): Trained parameters, those of norm and classifier included.
        operations (int): Floating-point operations up to the norm, for one sample.
    """

    identity: str = ''
    embed_dims: int = 0
    trainable: int = 0
    operations: int = 0


class AttentiveMean(nn.Module):
    """Weighted mean of tokens ``[B, N, C] -> [B, C]``: attention of one learned query.

    Each head weights its share of the channels. Without training it is the plain mean.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        heads = math.gcd(channels, ATTENTION_HEADS)
        self.query = nn.Parameter(torch.zeros(heads, channels // heads))

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted mean ``[B, C]`` of tokens ``[B, N, C]``."""
        x = x.unflatten(-1, self.query.shape)
        scores = (x * self.query).sum(-1, keepdim=True) / self.query.shape[1] ** 0.5
        return (x * scores.softmax(1)).sum(1).flatten(1)


def build_head(head: HeadSpec, channels: int, classes: int, seed: int) -> nn.Sequential:
    """Build a head: a module that turns tokens into one vector, a norm and a classifier.

    Args:
        head (HeadSpec): The head.
        channels (int): C of the tokens.
        classes (int): The number of logits.
        seed (int): Seeds the initialization, also that of a random block.

    Returns:
        nn.Sequential: Tokens ``[B, N, C]`` -> logits ``[B, classes]``.
    """
    torch.manual_seed(seed)
    channels = width_of(head.reads, channels)
    # An attentive mean that does not train is the plain mean, as the linear probe has.
    is_attentive = head.family == 'attentive'
    pool: nn.Module = AttentiveMean(channels).requires_grad_(is_attentive)
    if head.block:
        pool = build_neck(LLMBlock(**head.block, seed=seed), channels)
        initialize(pool, pool.init_cfg)
    elif head.width:
        pool = build_neck(TRAINED_LAYERS[head.family](head.width), channels)
        initialize(pool, pool.init_cfg)
    norm = nn.LayerNorm(channels, eps=1e-6)
    return nn.Sequential(pool, norm, nn.Linear(channels, classes))


def build_neck(block: nn.Module, channels: int) -> LLMBlockNeck:
    """Put a block between two mappers, in a neck that returns the mean token, ``[B, C]``.

    The neck has no norm, since :func:`build_head` adds one.

    Args:
        block (nn.Module): A language model's block or a layer that trains in its place.
        channels (int): C of the tokens.
    """
    # A language model's layer has a residual connection of its own.
    residual = 'inner' if isinstance(block, AttentionBlock) else 'none'
    return LLMBlockNeck(
        channels, block, norm_cfg=None, residual=residual, out_type='avg_featmap'
    )


def count_operations(
    pool: nn.Module, tokens: int, channels: int, device: str | torch.device
) -> int:
    """Count the floating-point operations of a head's first module for one sample.

    They are those of the forward pass of a training's batch, divided by :data:`BATCH`. A
    neck may order its products otherwise where no gradients are recorded.

    Args:
        pool (nn.Module): Takes tokens ``[B, N, C]``.
        tokens, channels (int): N and C.
        device (str): The module's device; on 'meta' nothing is computed.
    """
    x = torch.zeros(BATCH, tokens, channels, device=device)
    counter = FlopCounterMode(display=False)
    # Torch counts no operations of the CPU's fused attention.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        pool(x)
    return counter.get_total_flops() // BATCH
