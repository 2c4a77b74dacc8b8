"""Which fields of a language model's config its layers depend on.

A release writes them down, and the record of a checkpoint holds those that change what
the chosen layers compute.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

# Fields that do not affect layers: those that all models have, where the model was
# loaded from, remote code, storage type (the block's `dtype` decides), and heads for
# text.
_OF_STORAGE = {
    '_attn_implementation',
    '_attn_implementation_autoset',
    '_commit_hash',
    '_experts_implementation',
    'auto_map',
    'classifier_dropout',
    'finetuning_task',
    'gradient_checkpointing',
    'task_specific_params',
    'tokenizer_class',
    'torch_dtype',
    'use_cache',
}
_NOT_OF_LAYERS = (set(PretrainedConfig().to_dict()) | _OF_STORAGE) - {'model_type'}
# Fields of layers that do not affect what a trained one computes, or only how many
# there are. A field that contains one of these patterns is such.
_WITHOUT_EFFECT = (
    'token_id',
    'drop',
    'init',
    'vocab',
    'embedding_',
    'embd',
    'is_decoder',
    'decoder_(bias|out)',
    'cross_att',
    'summary',
    'classifier',
    '_pred',
    'aux',
    'jitter',
    'router_logits',
    'final_logit',
    'logits?_scal',
    'pretraining',
    'task',
    'num_(hidden_|decoder_)?layers',
    '^n_layers?$',
    'n_ctx',
    'n_positions',
    'max_window_layers',
    'attention_types',
    'deterministic',
    'scale_embedding',
)
# Fields that only rotary embedding reads.
_OF_ROTARY = ('rope', 'rotary', 'partial', 'position')


def layer_fields(config: PretrainedConfig) -> dict[str, Any]:
    """Return the fields of a config that layers may depend on."""
    return {k: v for k, v in config.to_dict().items() if k not in _NOT_OF_LAYERS}


def record_fields(
    config: PretrainedConfig, layers: Sequence[int], rotary: bool
) -> dict[str, Any]:
    """Return the fields by which some layers compute, as plain data for a record.

    Args:
        config (PretrainedConfig): The language model's (text) config.
        layers (Sequence[int]): The layers. Of a field with an entry for each layer of
            the model, only theirs are returned.
        rotary (bool): Whether these layers have rotary embedding.
    """
    fields = json.loads(json.dumps(config.to_dict(), default=str))
    without_effect = list(_WITHOUT_EFFECT)
    if not rotary:
        without_effect.extend(_OF_ROTARY)
    elif not re.search('dynamic|longrope', str(fields)):
        without_effect.append('^max_position')
    pattern = re.compile('|'.join(without_effect))
    record = {}
    for name, value in fields.items():
        if name in _NOT_OF_LAYERS or pattern.search(name):
            continue
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            value = [value[i] for i in layers]
        record[name] = value
    return record
