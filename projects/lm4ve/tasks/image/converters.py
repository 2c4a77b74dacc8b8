"""The paper's released image models (ViT, ViT-LLaMA) as mmpretrain classifiers.

Their names are timm's (github.com/ziqipang/LM4VisualEncoding, whose
``image_classification/models`` descends from DeiT); ours are those of
mmpretrain's ``VisionTransformer`` in an ``ImageClassifier`` with
:class:`lm4ve.necks.LLMBlockNeck`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lm4ve.blocks.provenance import SOURCE_KEY
from lm4ve.converters.block import BLOCK_PREFIX, compare_block
from lm4ve.converters.key_rules import Rules, rename
from lm4ve.errors import UserError

_WB = r'(weight|bias)'

_VIT = (
    (r'(cls_token|pos_embed)', r'backbone.\1'),
    (rf'patch_embed\.proj\.{_WB}', r'backbone.patch_embed.projection.\1'),
    (rf'blocks\.(\d+)\.norm([12])\.{_WB}', r'backbone.layers.\1.ln\2.\3'),
    (rf'blocks\.(\d+)\.attn\.(qkv|proj)\.{_WB}', r'backbone.layers.\1.attn.\2.\3'),
    (rf'blocks\.(\d+)\.mlp\.fc1\.{_WB}', r'backbone.layers.\1.ffn.layers.0.0.\2'),
    (rf'blocks\.(\d+)\.mlp\.fc2\.{_WB}', r'backbone.layers.\1.ffn.layers.1.\2'),
    (rf'head\.{_WB}', r'head.layers.head.\1'),
)
_REQUIRED = (
    'backbone.cls_token',
    'backbone.pos_embed',
    'backbone.patch_embed.projection.weight',
    'backbone.layers.0.attn.qkv.weight',
    'head.layers.head.weight',
)
#: Plain ViT: the final norm is the backbone's.
VIT_RULES = Rules(
    renames=(*_VIT, (rf'norm\.{_WB}', r'backbone.ln1.\1')),
    required=(*_REQUIRED, 'backbone.ln1.weight'),
)
#: With a block: the final norm comes after it, in the neck.
VIT_LLAMA_RULES = Rules(
    renames=(
        *_VIT,
        (rf'norm\.{_WB}', r'neck.norm.\1'),
        (r'llama_dim_mapper1\.weight', 'neck.mapper_in.weight'),
        (r'llama_dim_mapper2\.weight', 'neck.mapper_out.weight'),
    ),
    required=(*_REQUIRED, 'neck.norm.weight', 'neck.mapper_in.weight', 'neck.mapper_out.weight'),
)


def convert_vit(
    state: dict[str, Tensor],
    llm: str | None = None,
    layer: int | Sequence[int] = -1,
    origin: str = 'The checkpoint',
) -> dict[str, Tensor]:
    """Convert the state of a released ViT or ViT-LLaMA.

    Args:
        state (dict[str, Tensor]): By the released names.
        llm (str, optional): The language model that the block is of; needed
            if there is one.
        layer (int | Sequence[int]): Its layer(s) that the block is.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: The state of our model, fp32, to be loaded with
        ``strict=True``; frozen tensors are left out.

    Raises:
        UserError: There is a block, but no language model to compare it with,
            or the reverse.
        CheckpointError: See :func:`lm4ve.converters.key_rules.rename` and
            :func:`lm4ve.converters.block.compare_block`.
    """
    rest = {k: v for k, v in state.items() if not k.startswith(BLOCK_PREFIX)}
    has_block = len(rest) < len(state)
    if has_block and llm is None:
        raise UserError(
            f"{origin} has a language model block ('{BLOCK_PREFIX}...'), whose "
            'weights are not copied but compared with their source. Fix: give '
            'the language model with --llm (a LLaMA-1 7B folder in Meta or '
            'Hugging Face layout for the released checkpoints).'
        )
    if llm is not None and not has_block:
        raise UserError(
            f"{origin} has no language model block ('{BLOCK_PREFIX}...'), so "
            'it is a plain ViT. Fix: leave out --llm.'
        )
    rules = VIT_LLAMA_RULES if has_block else VIT_RULES
    renamed, _ = rename(rest, rules, origin)
    if has_block:
        record = compare_block(state, BLOCK_PREFIX, llm, layer)
    converted = {k: v.to(torch.float32) for k, v in renamed.items()}
    if has_block:
        converted[f'neck.block.{SOURCE_KEY}'] = record
    return converted
