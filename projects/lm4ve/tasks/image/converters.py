"""The paper's released image models (ViT, ViT-LLaMA) as mmpretrain classifiers.

Their names are timm's (github.com/ziqipang/LM4VisualEncoding, whose
``image_classification/models`` descends from DeiT); ours are those of
mmpretrain's ``VisionTransformer`` in an ``ImageClassifier`` with
:class:`lm4ve.necks.LLMBlockNeck`.
"""

from collections.abc import Sequence

from torch import Tensor

from lm4ve.convert.key_rules import RELEASED_NECK, RELEASED_NECK_REQUIRED, Rules
from lm4ve.convert.released_block import convert_state

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
    renames=(*_VIT, *RELEASED_NECK), required=(*_REQUIRED, *RELEASED_NECK_REQUIRED)
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
        llm (str, optional): The language model of the block; needed if there is a
            block.
        layer (int | Sequence[int]): The block's layer(s) in it.
        origin (str): Name of the file in messages.

    Returns:
        dict[str, Tensor]: The state of our model, fp32, to be loaded with
        ``strict=True``; frozen tensors are left out.

    Raises:
        UserError, CheckpointError: See
            :func:`lm4ve.convert.released_block.convert_state`.
    """
    return convert_state(
        state,
        plain=VIT_RULES,
        with_block=VIT_LLAMA_RULES,
        llm=llm,
        layer=layer,
        origin=origin,
    )
