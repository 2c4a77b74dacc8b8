"""What is trained on an encoder's tokens: probes, blocks, and controls of the same size.

All variants share pooling, final norm and head, so that they differ in one place only::

    tokens [B, N, C] -> (mapper -> block -> mapper) -> pool -> LayerNorm -> Linear -> logits

A frozen block helps only in comparison: with no block, with random weights of the same shape,
with weights from a formal language, and with trained layers in its place. The trained layers
come in two sizes: as many trainable parameters as the two mappers, and as many operations as
the frozen block. Either could explain a gain alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import initialize
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lm4ve.blocks import LLMBlock, MLPBlock
from lm4ve.blocks.layer import Queries, take_tokens
from lm4ve.necks import LLMBlockNeck

#: Names that ``--variants`` takes.
FAMILIES = ('linear', 'attentive', 'frozen', 'random', 'formal', 'attention', 'mlp')
#: Those with layers of a language model's shape.
BLOCKS = ('frozen', 'random', 'formal')
#: Samples of a step; operations are counted for as many, since folding depends on their number.
BATCH = 64
_HEADS = 8


@dataclass(frozen=True)
class Variant:
    """One thing to train.

    Attributes:
        name (str): In tables.
        family (str): Of :data:`FAMILIES`.
        words (str): In sentences.
        block (Mapping): Arguments of :class:`lm4ve.blocks.LLMBlock`, for :data:`BLOCKS`.
        width (int): Of the layer that is trained in the block's place.
    """

    name: str
    family: str
    words: str
    block: Mapping[str, Any] = field(default_factory=dict)
    width: int = 0


class AttentiveMean(nn.Module):
    """Weighted mean of tokens ``[B, N, C] -> [B, C]``: attention of one learned query.

    Each head weights its share of the channels. It starts as the plain mean.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        heads = math.gcd(channels, _HEADS)
        self.query = nn.Parameter(torch.zeros(heads, channels // heads))

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, self.query.shape)
        scores = (heads * self.query).sum(-1, keepdim=True) / self.query.shape[1] ** 0.5
        return (heads * scores.softmax(1)).sum(1).flatten(1)


class AttentionBlock(nn.Module):
    """A pre-norm self-attention layer with a residual connection.

    Args:
        embed_dims (int): Its width, a multiple of 8, the number of heads.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.norm = nn.LayerNorm(embed_dims)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.out = nn.Linear(embed_dims, embed_dims)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        """Map ``[B, N, D]`` to ``[B, Q, D]``; no token is padding here."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return take_tokens(x + self.out(mixed), queries)


class Head(nn.Module):
    """A way to pool tokens, then LayerNorm and a linear classifier."""

    def __init__(self, pool: Callable[[Tensor], Tensor], channels: int, classes: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.pool(x)))
        return out


def build_head(variant: Variant, channels: int, classes: int, seed: int) -> Head:
    """Build a variant for tokens ``[B, N, channels]``.

    Args:
        variant (Variant): What to build.
        channels, classes (int): C, and the number of logits.
        seed (int): Of the initialization; the random block is another one with every seed.
    """
    torch.manual_seed(seed)
    if variant.family == 'linear':
        return Head(_Mean(), channels, classes)
    if variant.family == 'attentive':
        return Head(AttentiveMean(channels), channels, classes)
    if variant.family in BLOCKS:
        neck = build_neck(LLMBlock(**variant.block, seed=seed), channels)
    else:
        neck = build_neck(_LAYERS[variant.family](variant.width), channels)
    initialize(neck, neck.init_cfg)
    return Head(neck, channels, classes)


def build_neck(block: nn.Module, channels: int) -> LLMBlockNeck:
    """Put a block between mappers; the tokens' mean comes out, before the final norm."""
    return LLMBlockNeck(channels, block, norm_cfg=None, out_type='avg_featmap')


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


_LAYERS: dict[str, Callable[[int], nn.Module]] = dict(attention=AttentionBlock, mlp=MLPBlock)


def count_operations(module: nn.Module, tokens: int, channels: int, device: str = 'cpu') -> int:
    """Count the floating-point operations of a forward pass, for one sample of a batch."""
    x = torch.zeros(BATCH, tokens, channels, device=device)
    # The fused kernels of CPUs are not counted.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(x)
    return counter.get_total_flops() // BATCH


def count_trainable(module: nn.Module) -> int:
    """Count parameters that train."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def matching_width(
    family: str, channels: int, target: int, measure: Callable[[nn.Module], int]
) -> int:
    """Return the width at which a trained layer between its mappers comes nearest to a target.

    Args:
        family (str): 'attention' or 'mlp'.
        channels (int): C.
        target (int): What ``measure`` shall give.
        measure (Callable): Of a neck on the device 'meta'; grows with the width.
    """

    def size(width: int) -> int:
        with torch.device('meta'):
            return measure(build_neck(_LAYERS[family](width), channels))

    low, high = _HEADS, 2 * _HEADS
    while size(high) < target:
        low, high = high, 2 * high
    while high - low > _HEADS:
        middle = (low + high) // (2 * _HEADS) * _HEADS
        low, high = (middle, high) if size(middle) < target else (low, middle)
    return min(low, high, key=lambda width: abs(size(width) - target))


def list_blocks(
    checkpoint: str, layers: Sequence[int], formal: Mapping[str, str], dtype: str
) -> list[Variant]:
    """Return the variants with layers of a language model's shape.

    Args:
        checkpoint (str): As :class:`lm4ve.blocks.LLMBlock` takes it.
        layers (Sequence[int]): One frozen variant each; the random one has the shape of the last.
        formal (Mapping[str, str]): Name -> folder of weights pre-trained on a formal language.
        dtype (str): Of the block.
    """
    own = dict(checkpoint=checkpoint, dtype=dtype)
    found = []
    for i in layers:
        where = f' (layer {i})' if len(layers) > 1 else ''
        block = dict(own, layers=(i,))
        found.append(Variant(f'frozen{where}', 'frozen', f'the frozen block{where}', block))
    block = dict(own, layers=(layers[-1],), pretrained=False)
    found.append(Variant('random', 'random', 'a frozen random block', block))
    for name, folder in formal.items():
        words = f"a frozen block pre-trained on '{name}'"
        block = dict(checkpoint=folder, dtype=dtype)
        found.append(Variant(f'formal ({name})', 'formal', words, block))
    return found


def list_controls(channels: int, tokens: int, width: int, operations: int) -> list[Variant]:
    """Return the probes and the trained layers.

    Args:
        channels, tokens (int): C and N of the encoder's tokens.
        width (int): D of the frozen block, whose mappers have 2 C D parameters.
        operations (int): Of the frozen block with its mappers, for one sample.
    """
    sizes: dict[str, tuple[int, Callable[[nn.Module], int]]] = {
        'parameters': (2 * channels * width, count_trainable),
        'operations': (operations, lambda m: count_operations(m, tokens, channels, 'meta')),
    }
    found = [
        Variant('linear', 'linear', 'the linear probe'),
        Variant('attentive', 'attentive', 'the attentive probe'),
    ]
    for family, noun in (('attention', 'a trained attention layer'), ('mlp', 'a trained MLP')):
        for name, (target, measure) in sizes.items():
            fitting = matching_width(family, channels, target, measure)
            words = f'{noun} with as many {name}'
            found.append(Variant(f'{family} ({name})', family, words, width=fitting))
    return found
