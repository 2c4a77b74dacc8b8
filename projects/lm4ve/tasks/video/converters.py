"""VideoMAE's published checkpoints, and the paper's video models, for mmaction2.

VideoMAE's names (github.com/MCG-NJU/VideoMAE) are those of its
``modeling_pretrain.py`` and ``modeling_finetune.py``; the paper's
(github.com/ziqipang/LM4VisualEncoding, ``video_understanding``) are the latter
with two mappers and the block. Ours are those of mmaction2's
``VisionTransformer`` in a ``Recognizer3D`` with ``TimeSformerHead``.
"""

from collections.abc import Sequence

import torch
from mmaction.models.backbones.vit_mae import get_sinusoid_encoding
from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.tasks.base.key_rules import RELEASED_MAPPERS, RELEASED_NECK_REQUIRED, Rules
from lm4ve.tasks.base.released_block import convert_state

_WB = r'(weight|bias)'
_ENC = r'(?:encoder\.|backbone\.)?'

_TRUNK = (
    (rf'{_ENC}patch_embed\.proj\.{_WB}', r'backbone.patch_embed.projection.\1'),
    (rf'{_ENC}blocks\.(\d+)\.norm([12])\.{_WB}', r'backbone.blocks.\1.norm\2.\3'),
    (rf'{_ENC}blocks\.(\d+)\.attn\.([qv]_bias|qkv\.weight)', r'backbone.blocks.\1.attn.\2'),
    (rf'{_ENC}blocks\.(\d+)\.attn\.proj\.{_WB}', r'backbone.blocks.\1.attn.proj.\2'),
    (rf'{_ENC}blocks\.(\d+)\.mlp\.fc1\.{_WB}', r'backbone.blocks.\1.mlp.layers.0.0.\2'),
    (rf'{_ENC}blocks\.(\d+)\.mlp\.fc2\.{_WB}', r'backbone.blocks.\1.mlp.layers.1.\2'),
    (rf'{_ENC}blocks\.(\d+)\.gamma_([12])', r'backbone.blocks.\1.gamma_\2'),
)
_REQUIRED = ('backbone.patch_embed.projection.weight', 'backbone.blocks.0.attn.qkv.weight')
_POSITIONS = ((rf'{_ENC}pos_embed', 'the fixed sinusoid, made anew'),)
#: Of pre-training the encoder alone is fine-tuned; its final norm is not used
#: (fine-tuning's ``fc_norm`` starts afresh).
PRETRAINED_RULES = Rules(
    renames=_TRUNK,
    dropped=(
        *_POSITIONS,
        (r'encoder\.norm\.(weight|bias)', "pre-training's final norm"),
        (
            r'decoder\..+|encoder_to_decoder\.weight|mask_token|'
            r'decoder_pos_embed',
            "pre-training's decoder",
        ),
    ),
    required=_REQUIRED,
)
_FINETUNED = (*_TRUNK, (rf'head\.{_WB}', r'cls_head.fc_cls.\1'))
#: Plain ViT: the final norm is the backbone's.
FINETUNED_RULES = Rules(
    renames=(*_FINETUNED, (rf'{_ENC}fc_norm\.{_WB}', r'backbone.fc_norm.\1')),
    dropped=_POSITIONS,
    required=(*_REQUIRED, 'backbone.fc_norm.weight', 'cls_head.fc_cls.weight'),
)
#: With a block: the final norm comes after it, in the neck.
LLAMA_RULES = Rules(
    renames=(*_FINETUNED, (rf'{_ENC}fc_norm\.{_WB}', r'neck.norm.\1'), *RELEASED_MAPPERS),
    dropped=_POSITIONS,
    required=(*_REQUIRED, *RELEASED_NECK_REQUIRED, 'cls_head.fc_cls.weight'),
)


def convert_videomae(
    state: dict[str, Tensor],
    llm: str | None = None,
    layer: int | Sequence[int] = 15,
    img_size: int = 224,
    num_frames: int = 16,
    origin: str = 'The checkpoint',
) -> dict[str, Tensor]:
    """Convert a state of VideoMAE (either stage) or of the paper's video model.

    Args:
        state (dict[str, Tensor]): By the published names.
        llm (str, optional): The language model that the block is of; needed
            if there is one.
        layer (int | Sequence[int]): Its layer(s) that the block is; the
            released video models have layer 15.
        img_size (int): Side of the pictures in pixels, and
        num_frames (int): frames of a clip: for the table of positions, which
            published files do not have.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: The state of mmaction2's model, fp32. Of a
        pre-trained one everything but the head, with the final norm as
        fine-tuning starts it.

    Raises:
        UserError: The sizes do not fit the patches.
        UserError, CheckpointError: See :func:`lm4ve.tasks.base.released_block.convert_state`.
    """
    is_pretraining = any(k.startswith('decoder.') or k == 'mask_token' for k in state)
    plain = PRETRAINED_RULES if is_pretraining else FINETUNED_RULES
    converted = convert_state(state, plain, LLAMA_RULES, llm, layer, origin)
    width, _, tube, *patch = converted['backbone.patch_embed.projection.weight'].shape
    if num_frames % tube or img_size % patch[0]:
        raise UserError(
            f'{origin} has patches of {tube} frames and {patch[0]} pixels, of '
            f'which {num_frames} frames and {img_size} pixels are no multiples.'
            ' Fix: --num-frames, --img-size.'
        )
    count = num_frames // tube * (img_size // patch[0]) ** 2
    converted['backbone.pos_embed'] = get_sinusoid_encoding(count, width)
    if is_pretraining:
        converted['backbone.fc_norm.weight'] = torch.ones(width)
        converted['backbone.fc_norm.bias'] = torch.zeros(width)
    return converted
