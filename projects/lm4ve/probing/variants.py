"""What is trained on an encoder's tokens: probes, blocks, and controls of the same size.

All variants have the same final norm and classifier::

    tokens [B, N, C] -> (mapper -> block -> mapper) -> mean -> LayerNorm -> Linear -> logits

A frozen block helps only in comparison: with no block, with random weights of the same
shape, with weights from a formal language, and with trained layers in its place. The
trained layers come in two sizes: as many trainable parameters as the two mappers, and
as many operations as the frozen block. Either could explain a gain alone.
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

from lm4ve.blocks import LLMBlock, MLPBlock, count_parameters
from lm4ve.blocks.controls import AttentionBlock
from lm4ve.necks import LLMBlockNeck

#: Names that ``--variants`` takes.
FAMILIES = (
    'linear',
    'attentive',
    'frozen',
    'lora',
    'random',
    'formal',
    'attention',
    'mlp',
)
#: Samples of a step; operations are counted for as many, since folding depends on their
#: number.
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
        identity (str): Hex; of the computation and the frozen weights. This and what
            follows is known of a variant that was built: see
            :meth:`lm4ve.probing.training.Trainer.profile`.
        embed_dims (int): D of a block; 0 without one.
        trainable (int): Parameters that train, those of norm and classifier included.
        operations (int): Floating-point operations up to the norm, for one sample.
        step_seconds, fixed_seconds (float): A training takes these here; 0 was not
            measured.
    """

    name: str
    family: str
    words: str
    block: Mapping[str, Any] = field(default_factory=dict)
    width: int = 0
    identity: str = ''
    embed_dims: int = 0
    trainable: int = 0
    operations: int = 0
    step_seconds: float = 0.0
    fixed_seconds: float = 0.0


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


_LAYERS: dict[str, Callable[[int], nn.Module]] = dict(
    attention=AttentionBlock, mlp=MLPBlock
)


def build_head(
    variant: Variant, channels: int, classes: int, seed: int
) -> nn.Sequential:
    """Build a variant: what pools tokens ``[B, N, channels]``, norm and classifier.

    Args:
        variant (Variant): What to build.
        channels, classes (int): C, and the number of logits.
        seed (int): Of the initialization; the random block is another one with every
            seed.
    """
    torch.manual_seed(seed)
    pool: nn.Module = AttentiveMean(channels).requires_grad_(
        variant.family == 'attentive'
    )
    if variant.block or variant.width:
        build = _LAYERS.get(variant.family)
        block = build(variant.width) if build else LLMBlock(**variant.block, seed=seed)
        pool = _build_neck(block, channels)
        initialize(pool, pool.init_cfg)
    return nn.Sequential(
        pool, nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, classes)
    )


def _build_neck(block: nn.Module, channels: int) -> LLMBlockNeck:
    # A language model's layer has a residual connection of its own.
    residual = 'inner' if isinstance(block, AttentionBlock) else 'none'
    return LLMBlockNeck(channels, block, None, residual, out_type='avg_featmap')


def count(pool: nn.Module, tokens: int, channels: int, device: str) -> dict[str, int]:
    """Count trainable 'parameters', and floating-point 'operations' for one sample of a batch."""
    x = torch.zeros(BATCH, tokens, channels, device=device)
    # The counter does not know the CPU's fused attention.
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        pool(x)
    operations = counter.get_total_flops() // BATCH
    return dict(parameters=count_parameters(pool)[0], operations=operations)


def list_blocks(
    checkpoint: str, layers: Sequence[int], formal: Mapping[str, str], dtype: str
) -> list[Variant]:
    """Return the variants with layers of a language model's shape, the frozen ones first.

    Args:
        checkpoint (str): As :class:`lm4ve.blocks.LLMBlock` takes it.
        layers (Sequence[int]): One frozen variant each; LoRA is in the last, whose
            shape the random one has.
        formal (Mapping[str, str]): Name -> folder of weights pre-trained on a formal
            language.
        dtype (str): Of the block.
    """
    found, own = [], dict(checkpoint=checkpoint, dtype=dtype)
    for i in dict.fromkeys(layers):
        text, block = f' (layer {i})' if len(layers) > 1 else '', dict(own, layers=(i,))
        found.append(
            Variant(f'frozen{text}', 'frozen', f'the frozen block{text}', block)
        )
    last = dict(own, layers=layers[-1:])
    found.append(
        Variant(
            'lora', 'lora', 'the same block with LoRA', dict(last, trainable='lora')
        )
    )
    random = dict(last, pretrained=False)
    found.append(Variant('random', 'random', 'a frozen random block', random))
    for name, folder in formal.items():
        words, block = f"a frozen block of '{name}'", dict(own, checkpoint=folder)
        found.append(Variant(f'formal ({name})', 'formal', words, block))
    return found


def list_controls(
    channels: int, tokens: int, width: int, operations: int
) -> list[Variant]:
    """Return the probes and the trained layers.

    Args:
        channels, tokens (int): C and N of the encoder's tokens.
        width (int): D of the frozen block, whose mappers have 2 C D parameters.
        operations (int): Of the frozen block with its mappers, for one sample.
    """
    found = [
        Variant(name, name, f'the {name} probe') for name in ('linear', 'attentive')
    ]
    targets = dict(parameters=2 * channels * width, operations=operations)
    for family, noun in (('attention', 'attention layer'), ('mlp', 'MLP')):
        for size, target in targets.items():
            fitting = _matching_width(family, size, target, tokens, channels)
            words = f'a trained {noun} with as many {size}'
            found.append(Variant(f'{family} ({size})', family, words, width=fitting))
    return found


def _matching_width(
    family: str, size: str, target: int, tokens: int, channels: int
) -> int:
    """Return the width at which a layer between its mappers comes nearest to a target."""

    def excess(width: int) -> int:
        with torch.device('meta'):
            pool = _build_neck(_LAYERS[family](width), channels)
            return count(pool, tokens, channels, 'meta')[size] - target

    widths = range(_HEADS, 1 << 24, _HEADS)
    above = bisect_left(widths, 0, key=excess)
    return min(
        widths[max(above - 1, 0) : above + 1], key=lambda width: abs(excess(width))
    )
