"""Which heads a study compares: the frozen block, and what could explain its gain.

A frozen block helps only in comparison: with no block (probes, and classifiers that
everybody knows), with random weights of the same
shape, with weights from a formal language, and with trained layers in its place. The
trained layers come in two sizes: as many trainable parameters as the two mappers, and
as many operations as the frozen block. Either could explain a gain alone.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lm4ve.blocks import count_parameters
from lm4ve.study.heads.head import (
    ATTENTION_HEADS,
    TRAINED_LAYERS,
    HeadSpec,
    ProfiledHead,
    build_neck,
    count_operations,
)

#: Names that ``--variants`` takes.
FAMILIES = (
    'linear',
    'logreg',
    'knn',
    'attentive',
    'frozen',
    'random',
    'formal',
    'attention',
    'mlp',
)
#: What a linear probe reads -> its name in sentences.
_WORDS_OF_READS = {
    'class': 'class token',
    'mean': 'mean of the other tokens',
    'both': 'class token and mean',
}
#: Widths that are tried for a trained layer.
_WIDTHS = range(ATTENTION_HEADS, 1 << 24, ATTENTION_HEADS)


def list_blocks(
    checkpoint: str,
    layers: Sequence[int],
    kept_heads: Sequence[int] | None,
    formal: Mapping[str, str],
    dtype: str,
) -> list[HeadSpec]:
    """Return the heads that have layers of a language model: frozen, random, formal.

    Args:
        checkpoint (str): The language model, as :class:`lm4ve.blocks.LLMBlock` takes it.
        layers (Sequence[int]): Its layers that are the block.
        kept_heads (Sequence[int], optional): The query heads that every block keeps;
            None: all.
        formal (Mapping[str, str]): Name -> folder of weights that were pre-trained on a
            formal language.
        dtype (str): The type of the blocks' weights.
    """
    shared: dict[str, Any] = dict(dtype=dtype)
    if kept_heads is not None:
        shared['heads'] = tuple(kept_heads)
    frozen = dict(shared, checkpoint=checkpoint, layers=tuple(layers))
    random = dict(frozen, pretrained=False)
    heads = [
        HeadSpec('frozen', 'frozen', 'the frozen block', frozen),
        HeadSpec('random', 'random', 'a frozen random block', random),
    ]
    for name, folder in formal.items():
        words = f"a frozen block of '{name}'"
        block = dict(shared, checkpoint=folder)
        heads.append(HeadSpec(f'formal ({name})', 'formal', words, block))
    return heads


def words_of_layers(layers: Sequence[int]) -> str:
    """Return the name of a block's consecutive layers, such as '24-29', or of its one layer."""
    if len(layers) == 1:
        return str(layers[0])
    return f'{layers[0]}-{layers[-1]}'


def list_probes(has_class_token: bool) -> list[HeadSpec]:
    """Return the heads without any layer: linear and attentive probes, and fitted baselines.

    Args:
        has_class_token (bool): Whether the encoder has one. With it, the linear probe
            comes in three forms, of which the best on val is compared.
    """
    if not has_class_token:
        linear = [HeadSpec('linear', 'linear', 'the linear probe', reads='mean')]
        vector = 'mean'
        neighbours = 'mean'
    else:
        linear = []
        for reads in ('class', 'mean', 'both'):
            words = f'the linear probe ({_WORDS_OF_READS[reads]})'
            linear.append(HeadSpec(f'linear ({reads})', 'linear', words, reads=reads))
        vector = 'both'
        neighbours = 'class'
    return [
        *linear,
        HeadSpec('attentive', 'attentive', 'the attentive probe'),
        HeadSpec('logreg', 'logreg', 'logistic regression', reads=vector),
        HeadSpec('knn', 'knn', 'nearest neighbours', reads=neighbours),
    ]


def list_controls(block: ProfiledHead, channels: int, tokens: int) -> list[HeadSpec]:
    """Return the trained layers that could take the block's place.

    Each family comes in two sizes: with as many trainable parameters as the block's two
    mappers, and with as many operations for a sample as the block with its mappers.

    Args:
        block (ProfiledHead): The frozen block.
        channels, tokens (int): C and N of the encoder's tokens.
    """

    def count_pool(pool: nn.Module) -> int:
        return count_operations(pool, tokens, channels, 'meta')

    of_mappers = 2 * channels * block.embed_dims
    sizes = {
        'parameters': (_count_trainable, of_mappers),
        'operations': (count_pool, block.operations),
    }
    heads = []
    for family, noun in (('attention', 'attention layer'), ('mlp', 'MLP')):
        for kind, (measure, target) in sizes.items():
            head = HeadSpec(
                f'{family} ({kind})',
                family,
                f'a trained {noun} with as many {kind}',
                width=_find_width(family, channels, measure, target),
            )
            heads.append(head)
    return heads


def _count_trainable(pool: nn.Module) -> int:
    """Return the number of a module's parameters that train."""
    trainable, _ = count_parameters(pool)
    return trainable


def _find_width(
    family: str, channels: int, measure: Callable[[nn.Module], int], target: int
) -> int:
    """Return the width at which a layer between its mappers comes nearest to a target.

    Args:
        family (str): A key of :data:`lm4ve.study.heads.head.TRAINED_LAYERS`.
        channels (int): C.
        measure (Callable): The size of such a neck, which grows with the width.
        target (int): The size to reach.
    """

    def excess(width: int) -> int:
        """Return by how much the size at a width is above the target."""
        with torch.device('meta'):
            neck = build_neck(TRAINED_LAYERS[family](width), channels)
            return measure(neck) - target

    # The first width that is large enough, and the one before it.
    above = bisect_left(_WIDTHS, 0, key=excess)
    nearest = _WIDTHS[max(above - 1, 0) : above + 1]
    return min(nearest, key=lambda width: abs(excess(width)))
