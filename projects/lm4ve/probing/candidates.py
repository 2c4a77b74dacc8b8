"""Which heads a study compares: frozen blocks, and what could explain their gain.

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
from lm4ve.probing.heads import (
    ATTENTION_HEADS,
    TRAINED_LAYERS,
    HeadSpec,
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
    'lora',
    'random',
    'random-scaled',
    'formal',
    'attention',
    'mlp',
)
#: Families that are left out where not even the shortest plan fits the minutes, in this
#: order: what answers the question least for its time comes first.
DROPPED_FIRST = ('lora', 'mlp', 'attention')
#: What a linear probe reads -> its name in sentences.
_WORDS_OF_READS = {
    'class': 'class token',
    'mean': 'mean of the other tokens',
    'both': 'class token and mean',
}
#: Widths that are tried for a trained layer.
_WIDTHS = range(ATTENTION_HEADS, 1 << 24, ATTENTION_HEADS)


def list_blocks(
    blocks: Mapping[str, str],
    layers: Sequence[Sequence[int]],
    kept_heads: Sequence[int] | None,
    formal: Mapping[str, str],
    dtype: str,
) -> list[HeadSpec]:
    """Return the heads that have layers of a language model: frozen, with LoRA, random, formal.

    Args:
        blocks (Mapping[str, str]): Name -> a language model, as
            :class:`lm4ve.blocks.LLMBlock` takes it.
        layers (Sequence[Sequence[int]]): The layers of a block each. Each block gives a
            frozen head; the head with LoRA and the random ones of a language model have
            the last.
        kept_heads (Sequence[int], optional): The query heads that every block keeps;
            None: all.
        formal (Mapping[str, str]): Name -> folder of weights that were pre-trained on a
            formal language.
        dtype (str): The type of the blocks' weights.
    """
    shared: dict[str, Any] = dict(dtype=dtype)
    if kept_heads is not None:
        shared['heads'] = tuple(kept_heads)
    heads = []
    for model, checkpoint in blocks.items():
        of_model = dict(shared, checkpoint=checkpoint)
        name = model if len(blocks) > 1 else ''
        heads += _list_blocks_of_model(name, of_model, layers)
    for name, folder in formal.items():
        words = f"a frozen block of '{name}'"
        block = dict(shared, checkpoint=folder)
        heads.append(HeadSpec(f'formal ({name})', 'formal', words, block))
    return heads


def _list_blocks_of_model(
    model: str, shared: Mapping[str, Any], layers: Sequence[Sequence[int]]
) -> list[HeadSpec]:
    """Return the heads of one language model; see :func:`list_blocks`.

    Args:
        model (str): Its name where there are several, else ''.
        shared (Mapping): The arguments of all its blocks.
        layers (Sequence[Sequence[int]]): The layers of a block each.
    """
    models = (model,) if model else ()
    heads = []
    for own in dict.fromkeys(tuple(group) for group in layers):
        parts = [model] if model else []
        if len(layers) > 1:
            noun = 'layer' if len(own) == 1 else 'layers'
            parts.append(f'{noun} {words_of_layers(own)}')
        suffix = f' ({", ".join(parts)})' if parts else ''
        block: dict[str, Any] = dict(shared, layers=own)
        words = f'the frozen block{suffix}'
        heads.append(HeadSpec(f'frozen{suffix}', 'frozen', words, block, models=models))
    suffix = f' ({model})' if model else ''
    last: dict[str, Any] = dict(shared, layers=tuple(layers[-1]))
    for family, changes, words in (
        ('lora', dict(trainable='lora'), 'the same block with LoRA'),
        ('random', dict(pretrained=False), 'a frozen random block'),
        (
            'random-scaled',
            dict(pretrained='scaled'),
            'a frozen random block at the pre-trained scale',
        ),
    ):
        block = dict(last, **changes)
        name = f'{family}{suffix}'
        words = f'{words}{suffix}'
        heads.append(HeadSpec(name, family, words, block, models=models))
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
        HeadSpec('knn', 'knn', '20 nearest neighbours', reads=neighbours),
    ]


def list_controls(
    channels: int,
    tokens: int,
    width: int,
    operations: int,
    models: tuple[str, ...] = (),
) -> list[HeadSpec]:
    """Return the trained layers of two sizes that could take a block's place.

    Args:
        channels, tokens (int): C and N of the encoder's tokens.
        width (int): D of the frozen block, whose mappers have 2 C D parameters.
        operations (int): The operations of the frozen block with its mappers, for one
            sample.
        models (tuple[str, ...]): The language models whose blocks have this size; empty:
            all.
    """
    heads = []
    suffix = f' ({", ".join(models)})' if models else ''

    def count_pool(pool: nn.Module) -> int:
        return count_operations(pool, tokens, channels, 'meta')

    targets = {
        'parameters': (_count_trainable, 2 * channels * width),
        'operations': (count_pool, operations),
    }
    for family, noun in (('attention', 'attention layer'), ('mlp', 'MLP')):
        for size, (measure, target) in targets.items():
            own_width = _find_width(family, channels, measure, target)
            name = f'{family} ({size}){suffix}'
            words = f'a trained {noun} with as many {size}{suffix}'
            heads.append(HeadSpec(name, family, words, width=own_width, models=models))
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
        family (str): A key of :data:`lm4ve.probing.heads.TRAINED_LAYERS`.
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
