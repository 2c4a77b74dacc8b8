"""Turn what MMEngine saves into plain data, which every safe loader builds.

MMEngine pickles its message hub, which ``torch.load(weights_only=True)`` rightly
refuses (mmengine issue 1655).
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log

#: Marks the plain form of a scalar's history, and has its values.
_HISTORY = 'lm4ve_history'
_SCALARS: tuple[Any, ...] = (bool, int, float, complex, str, bytes, bytearray)
_TORCH = (torch.Tensor, torch.dtype, torch.device)


def to_plain(value: Any, path: str) -> Any:
    """Convert data to the types that every safe loader builds.

    These are dicts, lists, tuples, sets, tensors, Python's numbers and text. Their
    subclasses (named tuples, defaultdicts, enumerations) and numpy's numbers and arrays
    are converted to them. Any other object becomes its ``str``, with a warning.

    Args:
        value (Any): A part of a checkpoint.
        path (str): Its path in the checkpoint, for the warning.

    Returns:
        Any: New containers; tensors are the same objects.
    """
    if isinstance(value, HistoryBuffer):
        return _plain_history(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return to_plain(value.tolist(), path)
    if isinstance(value, Mapping):
        return _plain_mapping(value, path)
    if isinstance(value, (set, frozenset)):
        return {to_plain(item, path) for item in value}
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, f'{path}.{i}') for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Enum):
        return to_plain(value.value, path)
    for kind in _SCALARS:
        if isinstance(value, kind):
            return kind(value)
    if value is None or isinstance(value, _TORCH):
        return value
    text = f'{path} of the checkpoint is a {type(value).__name__}: its text was saved instead.'
    print_log(text, logger='current', level=logging.WARNING)
    return str(value)


def _plain_history(buffer: HistoryBuffer) -> dict[str, Any]:
    """Return a scalar's history as tensors; see :func:`restore_histories`."""
    values, counts = buffer.data
    return {
        _HISTORY: torch.as_tensor(np.asarray(values)),
        'counts': torch.as_tensor(np.asarray(counts)),
        'max_length': int(buffer.max_length),
    }


def _plain_mapping(mapping: Mapping[Any, Any], path: str) -> dict[Any, Any]:
    """Return a mapping as a dict of plain data.

    Functions among a scheduler's attributes (one-cycle has one) are dropped: a
    scheduler is built from its config before its state is loaded, so it has them
    already.
    """
    plain = {}
    for key, value in mapping.items():
        if not callable(value):
            plain[key] = to_plain(value, f'{path}.{key}')
    if not hasattr(mapping, '_metadata'):
        return plain
    # The state of a model, with the versions of its modules.
    state: OrderedDict[Any, Any] = OrderedDict(plain)
    state._metadata = mapping._metadata  # type: ignore[attr-defined]
    return state


def restore_histories(checkpoint: dict[str, Any]) -> None:
    """Rebuild the history buffers of a checkpoint's message hub, in place.

    Args:
        checkpoint (dict): As :func:`to_plain` made it. What another program wrote stays
            as it is.
    """
    hub = checkpoint.get('message_hub')
    if not isinstance(hub, dict):
        return
    scalars = hub.get('log_scalars')
    if not isinstance(scalars, dict):
        return
    for name, value in scalars.items():
        if isinstance(value, dict) and _HISTORY in value:
            scalars[name] = HistoryBuffer(
                value[_HISTORY].cpu().numpy(),
                value['counts'].cpu().numpy(),
                value['max_length'],
            )
