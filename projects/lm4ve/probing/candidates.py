"""Which heads a study compares: frozen blocks, and what could explain their gain.

A frozen block helps only in comparison: with no block (probes, and classifiers that
everybody knows), with random weights of the same
shape, with weights from a formal language, and with trained layers in its place. The
trained layers come in two sizes: as many trainable parameters as the two mappers, and
as many operations as the frozen block. Either could explain a gain alone.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from lm4ve.blocks import count_parameters
from lm4ve.probing.heads import (
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
            frozen head. Of the blocks with as many layers, the last gives a head with
            LoRA and random ones, with which all of them are compared.
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
    groups = list(dict.fromkeys(tuple(group) for group in layers))
    last_of_depth = {len(group): group for group in groups}
    heads = []
    for group in groups:
        name = _name_layers(group) if len(groups) > 1 else ''
        heads.append(
            _block_head('frozen', 'the frozen block', model, name, shared, group)
        )
    for depth, group in last_of_depth.items():
        words = 'the same block with LoRA'
        name = ''
        if len(groups) > 1:
            words = f'{_name_layers(group)} with LoRA'
            name = _name_layers(group)
        with_lora = dict(shared, trainable='lora')
        heads.append(_block_head('lora', words, model, name, with_lora, group))

        # Random layers are the same at any place of the language model.
        name = name_depth(depth) if len(last_of_depth) > 1 else ''
        for family, pretrained, words in (
            ('random', False, 'a frozen random block'),
            (
                'random-scaled',
                'scaled',
                'a frozen random block at the pre-trained scale',
            ),
        ):
            random = dict(shared, pretrained=pretrained)
            heads.append(_block_head(family, words, model, name, random, group))
    return heads


def _block_head(
    family: str,
    words: str,
    model: str,
    name: str,
    arguments: Mapping[str, Any],
    layers: tuple[int, ...],
) -> HeadSpec:
    """Return a head with a block of a language model.

    Args:
        family (str): Its family, which its name begins with.
        words (str): What it is, for sentences.
        model (str): The model's name where there are several, else ''.
        name (str): What tells it from others of its family and model; '' if nothing does.
        arguments (Mapping): The block's, without the layers.
        layers (tuple[int, ...]): The block's.
    """
    suffix = _in_brackets(model, name)
    block = dict(arguments, layers=layers)
    models = (model,) if model else ()
    return HeadSpec(
        f'{family}{suffix}',
        family,
        f'{words}{suffix}',
        block,
        models=models,
        depth=len(layers),
    )


def _in_brackets(*names: str) -> str:
    """Return the names that are there in brackets, after a space: ' (llama, layer 5)'."""
    present = [name for name in names if name]
    return f' ({", ".join(present)})' if present else ''


def _name_layers(layers: Sequence[int]) -> str:
    """Return the name of a block by its layers, such as 'layer 5' or 'layers 24-29'."""
    noun = 'layer' if len(layers) == 1 else 'layers'
    return f'{noun} {words_of_layers(layers)}'


def name_depth(depth: int) -> str:
    """Return a number of layers in words: '1 layer', '6 layers'."""
    noun = 'layer' if depth == 1 else 'layers'
    return f'{depth} {noun}'


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


class ControlSize(NamedTuple):
    """A size that a trained layer shares with frozen blocks, to take their place.

    Attributes:
        kind (str): 'parameters': trainable ones, of which the blocks' mappers have as
            many; or 'operations', those of the blocks with their mappers for one sample.
        target (int): The number.
        models (tuple[str, ...]): The language models whose blocks have this size; empty:
            all.
        depth (int): The number of layers of these blocks; 0: any.
    """

    kind: str
    target: int
    models: tuple[str, ...] = ()
    depth: int = 0


def sizes_of(blocks: Sequence[ProfiledHead], channels: int) -> list[ControlSize]:
    """Return the sizes that the controls of a study have.

    The first block of a language model with so many layers gives its size. Models of one
    size share their controls.

    Args:
        blocks (Sequence[ProfiledHead]): The frozen blocks, and others.
        channels (int): C of the encoder's tokens.
    """
    first_of: dict[tuple[tuple[str, ...], int], ProfiledHead] = {}
    for block in blocks:
        if block.family == 'frozen':
            first_of.setdefault((block.models, block.depth), block)
    # Kind, number and depth -> the models.
    models_of: dict[tuple[str, int, int], list[str]] = {}
    for (models, depth), block in first_of.items():
        of_mappers = 2 * channels * block.embed_dims
        models_of.setdefault(('parameters', of_mappers, 0), []).extend(models)
        models_of.setdefault(('operations', block.operations, depth), []).extend(models)

    # A control says only what tells it from others.
    depths = {depth for _, depth in first_of}
    groups = Counter((kind, depth) for kind, _, depth in models_of)
    sizes = []
    for (kind, target, depth), models_of_size in models_of.items():
        own_models: tuple[str, ...] = ()
        if groups[kind, depth] > 1:
            own_models = tuple(dict.fromkeys(models_of_size))
        own_depth = depth if len(depths) > 1 else 0
        sizes.append(ControlSize(kind, target, own_models, own_depth))
    return sizes


def list_controls(
    channels: int, tokens: int, sizes: Sequence[ControlSize]
) -> list[HeadSpec]:
    """Return the trained layers that could take a block's place.

    Args:
        channels, tokens (int): C and N of the encoder's tokens.
        sizes (Sequence[ControlSize]): Each gives a layer of every family.
    """
    heads = []

    def count_pool(pool: nn.Module) -> int:
        return count_operations(pool, tokens, channels, 'meta')

    measures = {'parameters': _count_trainable, 'operations': count_pool}
    for family, noun in (('attention', 'attention layer'), ('mlp', 'MLP')):
        for size in sizes:
            depth = name_depth(size.depth) if size.depth else ''
            suffix = _in_brackets(*size.models, depth)
            head = HeadSpec(
                f'{family} ({size.kind}){suffix}',
                family,
                f'a trained {noun} with as many {size.kind}{suffix}',
                width=_find_width(family, channels, measures[size.kind], size.target),
                models=size.models,
                depth=size.depth,
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
