"""A record as a state dict has it: JSON in a uint8 tensor, with the version of records."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lm4ve.blocks.removed import without_removed_settings
from lm4ve.errors import CheckpointError, brief

#: torch's name of a module's record in a state dict, after the module's own.
KEY = '_extra_state'
#: The version of records. ``old_records.py`` reads those of 1 and 2.
FORMAT = 3


def encode_record(record: Mapping[str, Any]) -> Tensor:
    """Return a record as a state dict has it, uint8."""
    content = {'format': FORMAT, **record}
    return torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)


def decode_record(stored: Any, name: str) -> dict[str, Any]:
    """Return the record in a state dict.

    Args:
        stored (Tensor): uint8. A file may hold anything in its place.
        name (str): What it is called in messages.

    Raises:
        CheckpointError: It is damaged, of another version, or has what this version no
            longer has.
    """
    record = decode_json(stored, name)
    found = record.pop('format', None)
    if found != FORMAT:
        raise CheckpointError(
            f'{name} is damaged, or of a newer lm4ve: format={brief(repr(found))}, '
            f'expected {FORMAT}. Fix: copy it again, or update lm4ve.'
        )
    return without_removed_settings(record)


def decode_json(stored: Any, name: str) -> dict[str, Any]:
    """Return the fields in a tensor of JSON.

    The arguments are those of :func:`decode_record`.

    Raises:
        CheckpointError: It is none.
    """
    try:
        # [:], since bytes(10**12) would be as long.
        record: Any = json.loads(bytes(stored[:].tolist()))
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as e:
        raise CheckpointError(
            f'{name} is damaged ({type(e).__name__}: {brief(str(e))}). Fix: copy it again.'
        ) from e
    if not isinstance(record, dict) or not record:
        raise CheckpointError(
            f'{name} is damaged: it is {brief(record)}, expected its fields. Fix: copy it '
            'again.'
        )
    return record
