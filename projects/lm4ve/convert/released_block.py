"""The language model block in a foreign checkpoint: proved equal, then left out.

The authors' code stores the frozen block in every checkpoint. Ours record which
layer of which language model it is; before that record is written, each of the
file's tensors is compared with the layer that it claims to be.
"""

import math
import re
from collections.abc import Iterable, Sequence

from torch import Tensor

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.record_text import KEY, encode_record
from lm4ve.convert.key_rules import Rules, rename
from lm4ve.errors import CheckpointError, UserError, listing, require
from lm4ve.llm.meta_layout import rotary_rows_to_huggingface

#: How names of the block begin in the authors' code, for every task.
BLOCK_PREFIX = 'llama.'
#: The same in the code of others: MedVisionLlama's and LLM4Seg's.
_OTHER_PREFIXES = ('llm.', 'llm4seg.llm.')

#: Meta's name in a layer -> the name in a layer of LLMBlock.
_LAYER_NAMES = {
    'attention.wq.weight': 'q_proj.weight',
    'attention.wk.weight': 'k_proj.weight',
    'attention.wv.weight': 'v_proj.weight',
    'attention.wo.weight': 'o_proj.weight',
    'feed_forward.w1.weight': 'mlp.gate_proj.weight',
    'feed_forward.w2.weight': 'mlp.down_proj.weight',
    'feed_forward.w3.weight': 'mlp.up_proj.weight',
    'attention_norm.weight': 'attention_norm.weight',
    'ffn_norm.weight': 'mlp_norm.weight',
}
#: The final norm, which the released code keeps beside the layers.
_NORM = f'{BLOCK_PREFIX}norm.weight'
# The released classes have no buffers; other versions of LLaMA's code keep the ones
# named here. Rotary embedding and the cache are not used on image tokens, and
# embedding and output layer belong to text.
_IGNORED = re.compile(
    r'(layers\.\d+\.attention\.)?(inner_attention\.)?'
    r'(rope\.freqs|rotary_emb\.inv_freq|freqs_cis|cache_[kv]|mask)'
    r'|tok_embeddings\.weight|output\.weight'
)
# Rounding moves an average of equal values by at most eps / (2 (1 - decay)) of them: 0.15 %
# in float32 with timm's decay of 0.99996, 0.6 % with 0.99999.
_MOST_DRIFT = 0.01


def convert_state(
    state: dict[str, Tensor],
    plain: Rules,
    with_block: Rules,
    llm: str | None,
    layer: int | Sequence[int],
    origin: str,
    kv_heads: str = 'grouped',
) -> dict[str, Tensor]:
    """Convert a foreign model with or without a block to tensors by our names.

    A block's own tensors are compared with the language model's and left out. What is
    kept of them is a record of which layers they are, a tensor of bytes.

    Args:
        state (dict[str, Tensor]): The checkpoint; names of a block's tensors begin with
            :data:`BLOCK_PREFIX`.
        plain (Rules): Its names and ours, of a model without a block.
        with_block (Rules): The same of what is around a block.
        llm (str, optional): The language model of the block; needed if there is a
            block.
        layer (int | Sequence[int]): The block's layer(s) in it.
        origin (str): Name of the file in messages.
        kv_heads (str): How the released code shares heads of keys and values.

    Returns:
        dict[str, Tensor]: The tensors by our names, floating point ones in fp32. With a
        block also :func:`compare_block`'s record, under the name that a neck's block has.

    Raises:
        UserError: There is a block, but no language model to compare it with, or the
            reverse.
        CheckpointError: See :func:`lm4ve.convert.key_rules.rename` and
            :func:`compare_block`.
    """
    around_block = {}
    for name, tensor in state.items():
        if not name.startswith(BLOCK_PREFIX):
            around_block[name] = tensor
    has_block = len(around_block) < len(state)
    if has_block != (llm is not None):
        article = 'a' if has_block else 'no'
        raise UserError(
            f"{origin} has {article} block ('{BLOCK_PREFIX}...'); a block is compared with "
            'its source. Fix: give --llm if and only if there is a block.'
        )
    rules = with_block if has_block else plain
    converted = {}
    for name, tensor in rename(around_block, rules, origin).items():
        converted[name] = tensor.float() if tensor.is_floating_point() else tensor
    if llm is not None:
        converted[f'neck.block.{KEY}'] = compare_block(state, llm, layer, kv_heads)
        # Which fields the neck has is not in the file: nothing of it is compared.
        converted[f'neck.{KEY}'] = encode_record({})
    return converted


def with_block_of(
    state: dict[str, Tensor], average: dict[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """Return a moving average of a model's weights, with the block of the model itself.

    timm averages frozen tensors, too, and each step rounds. So an average's copy of the
    block is not the language model's to the bit. The model's block is what the copy is
    an average of, if the copy is near it.

    Args:
        state (dict[str, Tensor]): The model's checkpoint, by the released names.
        average (dict[str, Tensor]): The average of its weights, by the same names.
        origin (str): Name of the file in messages.

    Raises:
        CheckpointError: The average's block has other tensors than the model's, or
            values that no rounding explains; the message names one.
    """
    block = {}
    for name, tensor in state.items():
        if name.startswith(BLOCK_PREFIX):
            block[name] = tensor
    averaged = {name for name in average if name.startswith(BLOCK_PREFIX)}
    missing = block.keys() - averaged
    unknown = averaged - block.keys()
    if missing or unknown:
        raise CheckpointError(
            f"{origin}: beside the model's block, that of model_ema lacks "
            f'{_listing_or_nothing(missing)} and has the unknown keys '
            f'{_listing_or_nothing(unknown)}.'
        )
    for name, tensor in block.items():
        if not _is_ignored(name) and not _is_average_of(average[name], tensor):
            raise CheckpointError(
                f"{origin}: '{name}' of model_ema is no average of the model's: it differs by "
                'more than rounding. Fix: leave out --ema.'
            )
    return {**average, **block}


def _is_average_of(average: Tensor, constant: Tensor) -> bool:
    """Return whether a tensor may be a moving average of one that stayed the same."""
    if average.shape != constant.shape:
        return False
    drift = (average.float() - constant.float()).abs().max()
    # NaN is no average either.
    return bool(drift <= _MOST_DRIFT * constant.float().abs().max())


def is_of_block(name: str) -> bool:
    """Return whether a released name is that of a tensor of the block itself."""
    return name.startswith((BLOCK_PREFIX, *_OTHER_PREFIXES))


def compare_block(
    state: dict[str, Tensor],
    llm: str,
    layer: int | Sequence[int],
    kv_heads: str = 'grouped',
) -> Tensor:
    """Check that a foreign checkpoint's block is a layer of a language model.

    Args:
        state (dict[str, Tensor]): The checkpoint; the keys that start with
            :data:`BLOCK_PREFIX` are all accounted for. Names and row order of q and k
            are Meta's, as in the authors' code.
        llm (str): The language model, as ``LLMBlock`` takes it: a Meta or
            Hugging Face folder, a weight file or a hub id.
        layer (int | Sequence[int]): The layer(s) of it that the block claims
            to be, in order.
        kv_heads (str): How the released code shares heads of keys and values, for the
            record.

    Returns:
        Tensor: uint8, the record that ``LLMBlock`` has in a checkpoint.

    Raises:
        CheckpointError: A tensor differs (the message names it and the largest
            difference), is missing or unknown, or the final norm has a gain.
        UserError: The language model is no LLaMA.
    """
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    # A tensor's name in the checkpoint -> its name in LLMBlock.
    names = {}
    for index in range(len(layers)):
        for meta_name, own_name in _LAYER_NAMES.items():
            name = f'{BLOCK_PREFIX}layers.{index}.{meta_name}'
            names[name] = f'layers.{index}.{own_name}'
    _check_names(state, names)
    norm = state.get(_NORM)
    if norm is not None and not bool((norm == 1).all()):
        # The released code never loads it, and LLMBlock applies the norm with unit
        # gain.
        raise CheckpointError(f"'{_NORM}' is not all ones, so outputs would differ.")
    block = LLMBlock(checkpoint=llm, layers=layers)
    model_type = block.source['model_type']
    require(
        model_type == 'llama',
        f"--llm: model_type is '{model_type}', but the released weights go with a block of "
        'LLaMA-7B. Fix: give the folder of that one.',
    )
    expected = frozen_tensors(block)
    head_dim = block.layers[0].head_dim
    differences = {}
    for name, own_name in names.items():
        differences[name] = _largest_difference(
            name, state[name], expected[own_name], head_dim
        )
    worst = max(differences, key=differences.__getitem__)
    if differences[worst] > 0:
        raise CheckpointError(
            f"'{worst}' differs from layers {block.source['layers']} of '{llm}': the largest "
            f'difference is {differences[worst]:.3g}. Fix: --llm, --layer.'
        )
    # What was compared above has the order of the language model.
    recorded = LLMBlock(checkpoint=llm, layers=layers, kv_heads=kv_heads)
    return recorded.get_extra_state()


def _check_names(state: dict[str, Tensor], expected: Iterable[str]) -> None:
    """Refuse a block that lacks a tensor of its layers, or has one that is not accounted for.

    Besides those of its layers it may have a final norm, and what :data:`_IGNORED` names.

    Args:
        state (dict[str, Tensor]): The checkpoint.
        expected (Iterable[str]): The names of the tensors of the block's layers in it.

    Raises:
        CheckpointError: It names the tensors that are missing and those that are unknown.
    """
    names = {name for name in state if name.startswith(BLOCK_PREFIX)}
    missing = set(expected) - names
    unknown = []
    for name in names - {*expected, _NORM}:
        if not _is_ignored(name):
            unknown.append(name)
    if missing or unknown:
        raise CheckpointError(
            f"The checkpoint's block lacks {_listing_or_nothing(missing)} and has the "
            f'unknown keys {_listing_or_nothing(unknown)}. Fix: name all of its layers (--layer).'
        )


def _is_ignored(name: str) -> bool:
    """Return whether a block's tensor has no effect on its outputs."""
    return _IGNORED.fullmatch(name.removeprefix(BLOCK_PREFIX)) is not None


def _listing_or_nothing(names: Iterable[str]) -> str:
    """Return names for a message, or 'nothing'."""
    ordered = sorted(names)
    if not ordered:
        return 'nothing'
    return listing(ordered)


def _largest_difference(
    name: str, tensor: Tensor, expected: Tensor, head_dim: int
) -> float:
    """Return the largest difference of a tensor from the language model's.

    The language model's is rounded to the file's precision first, so that a lower one
    alone makes no difference. Another shape, and NaN or infinite values, make an infinite
    difference.

    Args:
        name (str): Meta's name of it: q and k have rows in Meta's order.
        tensor (Tensor): The file's tensor.
        expected (Tensor): The language model's, by Hugging Face's order.
        head_dim (int): The width of an attention head.
    """
    if tensor.shape != expected.shape:
        return float('inf')
    if name.endswith(('wq.weight', 'wk.weight')):
        tensor = rotary_rows_to_huggingface(tensor, tensor.shape[0] // head_dim)
    rounded = expected.to(tensor.dtype).float()
    largest = (tensor.float() - rounded).abs().max().item()
    if math.isnan(largest):
        # The maximum of values is NaN as soon as one of them is.
        return float('inf')
    return largest
