"""Convert published Point-BERT and Point-MAE checkpoints to classifiers of this suite.

Three kinds by their names: pre-training (``transformer_q.`` or
``MAE_encoder.``), fine-tuned classifiers, and the paper's Point-BERT + LLaMA
(``llama_dim_mapper1/2``, ``llama.``), whose block is compared with the language
model and left out.
"""

import re
from collections.abc import Iterable, Sequence

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
#: How the encoder's names begin in pre-training: of Point-BERT, and of Point-MAE.
_ENCODER_PREFIXES = ('transformer_q.', 'MAE_encoder.')
#: What else has such a prefix, by its name after it: heads and the token of masked groups.
_NOT_ENCODER = re.compile(r'(cls_head|lm_head)\..*|mask_token')
#: What pre-training has without the prefix: momentum encoder, queue, tokenizer, decoder.
_BESIDE_ENCODER = re.compile(
    r'(transformer_[qk]|dvae|MAE_decoder|decoder_pos_embed|'
    r'increase_dim|norm_p)\..*|queue.*|mask_token'
)


def select_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a state the names of a fine-tuned classifier, and keep the encoder of pre-training.

    In pre-training the encoder's names have a prefix, as in ``MAE_encoder.norm.weight``,
    which is taken off. What does not belong to the encoder is left out; that it is known
    is checked, so that no tensor is lost in silence. A fine-tuned classifier stays as it
    is.

    Args:
        state (dict[str, Tensor]): Without ``module.``; names may begin with
            ``base_model.``.

    Returns:
        dict[str, Tensor]: By the names of a fine-tuned classifier.

    Raises:
        CheckpointError: Pre-training with keys of an unknown part.
    """
    unprefixed = {}
    for name, tensor in state.items():
        unprefixed[name.removeprefix('base_model.')] = tensor
    encoder_prefix = _pretraining_prefix(unprefixed)
    if encoder_prefix is None:
        return unprefixed
    encoder = {}
    unknown = []
    for name, tensor in unprefixed.items():
        if name.startswith(encoder_prefix):
            short_name = name.removeprefix(encoder_prefix)
            if not _NOT_ENCODER.fullmatch(short_name):
                encoder[short_name] = tensor
        elif not _BESIDE_ENCODER.fullmatch(name):
            unknown.append(name)
    if unknown:
        raise CheckpointError(
            f'The pre-training checkpoint has unknown keys: {listing(unknown)}.'
        )
    return encoder


def _pretraining_prefix(names: Iterable[str]) -> str | None:
    """Return how the encoder's names begin in a state of pre-training.

    Returns:
        str or None: The prefix, or None for the state of a fine-tuned model.
    """
    for prefix in _ENCODER_PREFIXES:
        if any(name.startswith(prefix) for name in names):
            return prefix
    return None


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
        select_encoder(state),
        plain=RULES,
        with_block=LLAMA_RULES,
        llm=llm,
        layer=layer,
        origin=origin,
    )
    if num_classes is not None:
        head = [name for name in converted if name.startswith('head.')]
        # The numbers of the layers have one digit, so that they sort as texts.
        last_layer = max(name.rpartition('.')[0] for name in head)
        for name in (f'{last_layer}.weight', f'{last_layer}.bias'):
            check('--num-classes', num_classes, most=len(converted[name]))
            converted[name] = converted[name][:num_classes]
    return converted
