"""The language model block in a foreign checkpoint: proved equal, then left out.

The authors' code stores the frozen block in every checkpoint. Ours record which
layer of which language model it is; before that record is written, each of the
file's tensors is compared with the layer that it claims to be.
"""

import re
from collections.abc import Sequence

from torch import Tensor

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.provenance import SOURCE_KEY
from lm4ve.convert.key_rules import Rules, rename
from lm4ve.errors import CheckpointError, UserError, listing, require
from lm4ve.llm.meta_layout import rotary_rows_to_huggingface

#: Begins the names of the block in the authors' code for every task.
BLOCK_PREFIX = 'llama.'

# Meta's name in a layer -> the name in a layer of LLMBlock.
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
# The released classes have no buffers; other versions of LLaMA's code keep the ones
# named here. Rotary embedding and the cache are not used on image tokens, and
# embedding and output layer belong to text.
_IGNORED = re.compile(
    r'(layers\.\d+\.attention\.)?(inner_attention\.)?'
    r'(rope\.freqs|rotary_emb\.inv_freq|freqs_cis|cache_[kv]|mask)'
    r'|tok_embeddings\.weight|output\.weight'
)


def convert_state(
    state: dict[str, Tensor],
    plain: Rules,
    with_block: Rules,
    llm: str | None,
    layer: int | Sequence[int],
    origin: str,
) -> dict[str, Tensor]:
    """Convert a foreign model with or without a block.

    Args:
        state (dict[str, Tensor]): The checkpoint.
        plain, with_block (Rules): Its names and ours, in either case.
        llm (str, optional): The language model of the block; needed if there is a
            block.
        layer (int | Sequence[int]): The block's layer(s) in it.
        origin (str): Name of the file in messages.

    Returns:
        dict[str, Tensor]: The tensors by our names, floating point ones in fp32. The
        block's own are left out; :func:`compare_block` gives the record of them.

    Raises:
        UserError: There is a block, but no language model to compare it with, or the
            reverse.
        CheckpointError: See :func:`lm4ve.convert.key_rules.rename` and
            :func:`compare_block`.
    """
    rest = {k: v for k, v in state.items() if not k.startswith(BLOCK_PREFIX)}
    has_block = len(rest) < len(state)
    if has_block != (llm is not None):
        raise UserError(
            f"{origin} has {'a' if has_block else 'no'} block ('{BLOCK_PREFIX}...'), which is "
            'compared with its source. Fix: give --llm if and only if there is a block.'
        )
    renamed = rename(rest, with_block if has_block else plain, origin)
    converted = {
        k: v.float() if v.is_floating_point() else v for k, v in renamed.items()
    }
    if llm is not None:
        converted[f'neck.block.{SOURCE_KEY}'] = compare_block(state, llm, layer)
    return converted


def compare_block(
    state: dict[str, Tensor], llm: str, layer: int | Sequence[int]
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

    Returns:
        Tensor: uint8, the record that ``LLMBlock`` keeps in a checkpoint under
        :data:`lm4ve.blocks.provenance.SOURCE_KEY`.

    Raises:
        CheckpointError: A tensor differs (the message names it and the largest
            difference), is missing or unknown, or the final norm has a gain.
        UserError: The language model is no LLaMA.
    """
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    mine = {k: v for k, v in state.items() if k.startswith(BLOCK_PREFIX)}
    names = {
        f'{BLOCK_PREFIX}layers.{i}.{meta}': f'layers.{i}.{ours}'
        for i in range(len(layers))
        for meta, ours in _LAYER_NAMES.items()
    }
    norm = f'{BLOCK_PREFIX}norm.weight'
    missing, others = names.keys() - mine.keys(), mine.keys() - {*names, norm}
    unknown = [
        k for k in others if not _IGNORED.fullmatch(k.removeprefix(BLOCK_PREFIX))
    ]
    if missing or unknown:
        raise CheckpointError(
            f"The checkpoint's block lacks {listing(sorted(missing)) or 'nothing'} and has the "
            f'unknown keys {listing(sorted(unknown))}. Fix: name all of its layers (--layer).'
        )
    if norm in mine and not bool((mine[norm] == 1).all()):
        # The released code never loads it, and LLMBlock applies the norm with unit
        # gain.
        raise CheckpointError(f"'{norm}' is not all ones, so outputs would differ.")
    block = LLMBlock(checkpoint=llm, layers=layers)
    kind = block.source['model_type']
    require(
        kind == 'llama',
        f"--llm: model_type is '{kind}', but the released weights go with a block of LLaMA-7B. "
        'Fix: give the folder of that one.',
    )
    theirs, head_dim = frozen_tensors(block), block.layers[0].head_dim
    differences = {
        name: _difference(name, mine[name], theirs[ours], head_dim)
        for name, ours in names.items()
    }
    worst = max(differences, key=differences.__getitem__)
    if differences[worst]:
        raise CheckpointError(
            f"'{worst}' differs from layers {block.source['layers']} of '{llm}': the largest "
            f'difference is {differences[worst]:.3g}. Fix: --llm, --layer.'
        )
    return block.state_dict()[SOURCE_KEY]


def _difference(name: str, tensor: Tensor, expected: Tensor, head_dim: int) -> float:
    """Return the largest difference of a tensor from the language model's; infinite of shapes."""
    if tensor.shape != expected.shape:
        return float('inf')
    if name.endswith(('wq.weight', 'wk.weight')):
        tensor = rotary_rows_to_huggingface(tensor, tensor.shape[0] // head_dim)
    # The same weights in the file's precision, should it be lower.
    difference = tensor.float() - expected.to(tensor.dtype).float()
    return difference.abs().max().nan_to_num(float('inf')).item()
