"""What is trained on an encoder's tokens: probes, blocks, and controls of the same size.

All variants have the same final norm and classifier::

    tokens [B, N, C] -> (mapper -> block -> mapper) -> mean -> LayerNorm -> Linear -> logits

A frozen block helps only in comparison: with no block, with random weights of the same shape,
with weights from a formal language, and with trained layers in its place. The trained layers
come in two sizes: as many trainable parameters as the two mappers, and as many operations as
the frozen block. Either could explain a gain alone.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
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

#: Names that ``--variants`` takes.
FAMILIES = ('linear', 'attentive', 'frozen', 'random', 'formal', 'attention', 'mlp')
#: Samples of a step; operations are counted for as many, since folding depends on their number.
BATCH = 64
#: Of attention, whose width is a multiple of it.
_HEADS = 8


@dataclass(frozen=True)
class Variant:
    """One thing to train.

    Attributes:
        name (str): In tables.
        family (str): It is one of :data:`FAMILIES`.
        words (str): In sentences.
        block (Mapping): Arguments of :class:`lm4ve.blocks.LLMBlock`, if it has one.
        width (int): The layer that trains in the block's place is as wide.
    """

    name: str
    family: str
    words: str
    block: Mapping[str, Any] = field(default_factory=dict)
    width: int = 0


class AttentiveMean(nn.Module):
    """Weighted mean of tokens ``[B, N, C] -> [B, C]``: attention of one learned query.

    Each head weights its share of the channels. Without training it is the plain mean.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        heads = math.gcd(channels, _HEADS)
        self.query = nn.Parameter(torch.zeros(heads, channels // heads))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, self.query.shape)
        scores = (x * self.query).sum(-1, keepdim=True) / self.query.shape[1] ** 0.5
        return (x * scores.softmax(1)).sum(1).flatten(1)


_LAYERS: dict[str, Callable[[int], nn.Module]] = dict(attention=AttentionBlock, mlp=MLPBlock)


def build_head(variant: Variant, channels: int, classes: int, seed: int) -> nn.Sequential:
    """Build a variant: what pools tokens ``[B, N, channels]``, norm and classifier.

    Args:
        variant (Variant): What to build.
        channels, classes (int): C, and the number of logits.
        seed (int): Of the initialization; the random block is another one with every seed.
    """
    torch.manual_seed(seed)
    pool: nn.Module = AttentiveMean(channels).requires_grad_(variant.family == 'attentive')
    if variant.block or variant.width:
        build = _LAYERS.get(variant.family)
        block = build(variant.width) if build else LLMBlock(**variant.block, seed=seed)
        pool = _build_neck(block, channels)
        initialize(pool, pool.init_cfg)
    return nn.Sequential(pool, nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, classes))


def _build_neck(block: nn.Module, channels: int) -> LLMBlockNeck:
    # A language model's layer has a residual connection of its own.
    residual = 'inner' if isinstance(block, AttentionBlock) else 'none'
    return LLMBlockNeck(channels, block, None, residual, out_type='avg_featmap')


def count_operations(module: nn.Module, tokens: int, channels: int, device: str) -> int:
    """Count the floating-point operations of a forward pass, for one sample of a batch."""
    x = torch.zeros(BATCH, tokens, channels, device=device)
    # The counter does not know the CPU's fused attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // BATCH


def count_trainable(module: nn.Module) -> int:
    """Count the parameters that train."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


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
    several = {i: f' (layer {i})' if len(layers) > 1 else '' for i in layers}
    random = dict(own, layers=layers[-1:], pretrained=False)
    return [
        *(
            Variant(f'frozen{text}', 'frozen', f'the frozen block{text}', dict(own, layers=(i,)))
            for i, text in several.items()
        ),
        Variant('random', 'random', 'a frozen random block', random),
        *(
            Variant(f'formal ({k})', 'formal', f"a frozen block of '{k}'", dict(own, checkpoint=v))
            for k, v in formal.items()
        ),
    ]


def list_controls(channels: int, tokens: int, width: int, operations: int) -> list[Variant]:
    """Return the probes and the trained layers.

    Args:
        channels, tokens (int): C and N of the encoder's tokens.
        width (int): D of the frozen block, whose mappers have 2 C D parameters.
        operations (int): Of the frozen block with its mappers, for one sample.
    """
    found = [Variant(name, name, f'the {name} probe') for name in ('linear', 'attentive')]
    sizes: dict[str, tuple[int, Callable[[nn.Module], int]]] = {
        'parameters': (2 * channels * width, count_trainable),
        'operations': (operations, lambda m: count_operations(m, tokens, channels, 'meta')),
    }
    for family, noun in (('attention', 'attention layer'), ('mlp', 'MLP')):
        for size, (target, count) in sizes.items():
            fitting = _matching_width(_LAYERS[family], channels, target, count)
            words = f'a trained {noun} with as many {size}'
            found.append(Variant(f'{family} ({size})', family, words, width=fitting))
    return found


def _matching_width(
    build: Callable[[int], nn.Module], channels: int, target: int, count: Callable[[nn.Module], int]
) -> int:
    """Return the width at which a layer between its mappers comes nearest to a target."""

    def size(width: int) -> int:
        with torch.device('meta'):
            return count(_build_neck(build(width), channels))

    widths = range(_HEADS, 1 << 24, _HEADS)
    above = bisect_left(widths, target, key=size)
    return min(widths[max(above - 1, 0) : above + 1], key=lambda w: abs(size(w) - target))
