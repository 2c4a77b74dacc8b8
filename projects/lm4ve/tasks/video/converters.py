"""VideoMAE's published checkpoints, and the paper's video models, for mmaction2.

VideoMAE's names (github.com/MCG-NJU/VideoMAE) are those of its
``modeling_pretrain.py`` and ``modeling_finetune.py``; the paper's
(github.com/ziqipang/LM4VisualEncoding, ``video_understanding``) are the latter
with two mappers and the block. Ours are those of mmaction2's
``VisionTransformer`` in a ``Recognizer3D`` with ``TimeSformerHead``.
"""

import re
from collections.abc import Sequence

import torch
from mmaction.models.backbones.vit_mae import get_sinusoid_encoding
from torch import Tensor

from lm4ve.convert.key_rules import (
    RELEASED_MAPPERS,
    RELEASED_NECK_REQUIRED,
    Rules,
    template_rules,
)
from lm4ve.convert.released_block import convert_state
from lm4ve.errors import UserError

_TRUNK = (
    ('patch_embed.proj.{p}', 'backbone.patch_embed.projection.{p}'),
    ('blocks.{i}.norm{j}.{p}', 'backbone.blocks.{i}.norm{j}.{p}'),
    ('blocks.{i}.attn.{rest}', 'backbone.blocks.{i}.attn.{rest}'),
    ('blocks.{i}.mlp.fc1.{p}', 'backbone.blocks.{i}.mlp.layers.0.0.{p}'),
    ('blocks.{i}.mlp.fc2.{p}', 'backbone.blocks.{i}.mlp.layers.1.{p}'),
    ('blocks.{i}.gamma_{j}', 'backbone.blocks.{i}.gamma_{j}'),
)
_POSITIONS = ('pos_embed', 'the fixed sinusoid, made anew')
_REQUIRED = (
    'backbone.patch_embed.projection.weight',
    'backbone.blocks.0.attn.qkv.weight',
)


def _finetuned(
    norm: str, mappers: Sequence[tuple[str, str]], required: Sequence[str]
) -> Rules:
    """Return the rules of a fine-tuned model.

    Args:
        norm (str): Our name of the final norm.
        mappers (Sequence[tuple[str, str]]): Patterns and replacements of the mappers.
        required (Sequence[str]): Our names of norm and mappers.
    """
    names = (
        *_TRUNK,
        ('fc_norm.{p}', f'{norm}.{{p}}'),
        ('head.{p}', 'cls_head.fc_cls.{p}'),
    )
    return Rules(
        renames=(*template_rules(names), *mappers),
        dropped=(_POSITIONS,),
        required=(*_REQUIRED, *required, 'cls_head.fc_cls.weight'),
    )


#: Plain ViT: the final norm is the backbone's.
FINETUNED_RULES = _finetuned('backbone.fc_norm', (), ('backbone.fc_norm.weight',))
#: With a block: the final norm comes after it, in the neck.
LLAMA_RULES = _finetuned('neck.norm', RELEASED_MAPPERS, RELEASED_NECK_REQUIRED)
#: Of pre-training the encoder alone is fine-tuned; its final norm is not used
#: (fine-tuning's ``fc_norm`` starts afresh).
PRETRAINED_RULES = Rules(
    renames=template_rules(_TRUNK),
    dropped=(
        _POSITIONS,
        (r'norm\..*', "pre-training's final norm"),
        (
            r'(decoder|encoder_to_decoder)\..+|mask_token|decoder_pos_embed',
            'the decoder',
        ),
    ),
    required=_REQUIRED,
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
        llm (str, optional): The language model of the block; needed if there is a
            block.
        layer (int | Sequence[int]): The block's layer(s) in it; the released video
            models have layer 15.
        img_size (int): Side of the pictures in pixels, for the table of positions,
            which published files do not have.
        num_frames (int): Frames of a clip, for the same table.
        origin (str): Name of the file in messages.

    Returns:
        dict[str, Tensor]: The state of mmaction2's model, fp32. Of a
        pre-trained one everything but the head, with the final norm as
        fine-tuning starts it.

    Raises:
        UserError: The sizes do not fit the patches.
        UserError, CheckpointError: See
            :func:`lm4ve.convert.released_block.convert_state`.
    """
    is_pretraining = any(
        name.startswith('decoder.') or name == 'mask_token' for name in state
    )
    plain_rules = PRETRAINED_RULES if is_pretraining else FINETUNED_RULES
    unprefixed = {}
    for name, tensor in state.items():
        unprefixed[re.sub(r'^(encoder|backbone)\.', '', name)] = tensor
    converted = convert_state(
        unprefixed,
        plain=plain_rules,
        with_block=LLAMA_RULES,
        llm=llm,
        layer=layer,
        origin=origin,
    )
    projection = converted['backbone.patch_embed.projection.weight']
    width, _, tube, side, _ = projection.shape
    if num_frames % tube != 0 or img_size % side != 0:
        raise UserError(
            f'--num-frames and --img-size must be multiples of the {tube} frames and '
            f'{side} pixels of {origin}.'
        )
    num_patches = num_frames // tube * (img_size // side) ** 2
    converted['backbone.pos_embed'] = get_sinusoid_encoding(num_patches, width)
    if is_pretraining:
        converted['backbone.fc_norm.weight'] = torch.ones(width)
        converted['backbone.fc_norm.bias'] = torch.zeros(width)
    return converted
