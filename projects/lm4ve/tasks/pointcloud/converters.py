"""Convert published Point-BERT and Point-MAE checkpoints to classifiers of this suite.

Three kinds by their names: pre-training (``transformer_q.`` or
``MAE_encoder.``), fine-tuned classifiers, and the paper's Point-BERT + LLaMA
(``llama_dim_mapper1/2``, ``llama.``), whose block is compared with the language
model and left out.
"""

import re
from collections.abc import Sequence

from torch import Tensor

from lm4ve.convert.key_rules import (
    RELEASED_NECK,
    RELEASED_NECK_REQUIRED,
    Rules,
    template_rules,
)
from lm4ve.convert.released_block import convert_state
from lm4ve.errors import CheckpointError, check, listing

_TRUNK = (
    ('cls_{rest}', 'backbone.cls_{rest}'),
    ('encoder.{rest}', 'backbone.encoder.{rest}'),
    ('reduce_dim.{p}', 'backbone.reduce_dim.{p}'),
    ('pos_embed.{i}.{p}', 'backbone.pos_embed.{i}.{p}'),
    ('blocks.blocks.{rest}', 'backbone.blocks.{rest}'),
)
_RENAMES = template_rules([('cls_head_finetune.{rest}', 'head.layers.{rest}'), *_TRUNK])
_REQUIRED = (
    'backbone.encoder.first_conv.0.weight',
    'backbone.pos_embed.0.weight',
    'backbone.blocks.0.attn.qkv.weight',
)
RULES = Rules(
    renames=(*_RENAMES, *template_rules([('norm.{p}', 'backbone.norm.{p}')])),
    required=(*_REQUIRED, 'backbone.norm.weight'),
)
LLAMA_RULES = Rules(
    renames=(*_RENAMES, *RELEASED_NECK), required=(*_REQUIRED, *RELEASED_NECK_REQUIRED)
)
#: How the kept keys of pre-training begin, and which of them are not the encoder's.
_PRETRAINING = ('transformer_q.', 'MAE_encoder.')
_NOT_ENCODER = re.compile(r'(cls_head|lm_head)\..*|mask_token')
# The rest of pre-training: momentum encoder, queue, tokenizer, decoder.
_REST = re.compile(
    r'(transformer_[qk]|dvae|MAE_decoder|decoder_pos_embed|'
    r'increase_dim|norm_p)\..*|queue.*|mask_token'
)


def select_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip prefixes, and of pre-training keep the encoder.

    Args:
        state (dict[str, Tensor]): Without ``module.``; names may begin with
            ``base_model.``.

    Returns:
        dict[str, Tensor]: By the names of a fine-tuned classifier.

    Raises:
        CheckpointError: Pre-training with keys of an unknown part.
    """
    state = {k.removeprefix('base_model.'): v for k, v in state.items()}
    prefix = next(
        (p for p in _PRETRAINING if any(k.startswith(p) for k in state)), None
    )
    if prefix is None:
        return state
    unknown = [k for k in state if not k.startswith(prefix) and not _REST.fullmatch(k)]
    if unknown:
        raise CheckpointError(
            f'The pre-training checkpoint has unknown keys: {listing(unknown)}.'
        )
    encoder = {
        k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)
    }
    return {k: v for k, v in encoder.items() if not _NOT_ENCODER.fullmatch(k)}


def convert_pointbert(
    state: dict[str, Tensor],
    llm: str | None = None,
    layer: int | Sequence[int] = -1,
    num_classes: int | None = None,
    origin: str = 'The checkpoint',
) -> dict[str, Tensor]:
    """Convert a state of Point-BERT, Point-MAE, or Point-BERT + LLaMA.

    Args:
        state (dict[str, Tensor]): By the published names.
        llm (str, optional): The language model of the block; needed if there is a
            block.
        layer (int | Sequence[int]): The block's layer(s) in it.
        num_classes (int, optional): Keep the head's first rows only: the
            ScanObjectNN checkpoints have 40, of which 15 were ever used.
        origin (str): Name of the file in messages.

    Returns:
        dict[str, Tensor]: The state of :class:`PointCloudClassifier`; of
        pre-training without a head.

    Raises:
        UserError, CheckpointError: There are fewer classes than ``num_classes``; see
            also :func:`lm4ve.convert.released_block.convert_state`.
    """
    converted = convert_state(
        select_encoder(state), RULES, LLAMA_RULES, llm, layer, origin
    )
    if num_classes is not None:
        last = max(k.rpartition('.')[0] for k in converted if k.startswith('head.'))
        for key in (f'{last}.weight', f'{last}.bias'):
            check('--num-classes', num_classes, most=len(converted[key]))
            converted[key] = converted[key][:num_classes]
    return converted
