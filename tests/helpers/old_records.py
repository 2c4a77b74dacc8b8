"""States as older versions wrote them: ``llm_source`` in a block, ``neck_settings`` in a neck."""

import json
from typing import Any

import torch
from torch import Tensor

from lm4ve.blocks.record_text import KEY, decode_record


def encode_old(record: dict[str, Any]) -> Tensor:
    """Return an old record as a state dict had it."""
    return torch.tensor(list(json.dumps(record).encode()), dtype=torch.uint8)


def old_block_record(state: dict[str, Any], key: str = KEY, **changes: Any) -> Tensor:
    """Return the old record of a block whose state has a present one.

    Args:
        state (dict): A state dict.
        key (str): The record's key in it.
        changes: Other fields of the old record; None takes one out.
    """
    record = dict(format=1, **decode_record(state[key], key))
    record['lora'] = record['lora'] or 'none'
    kept = record.pop('heads')
    if kept is not None:
        record['kept_heads'] = kept
    for name, value in changes.items():
        record[name] = value
        if value is None:
            del record[name]
    return encode_old(record)
