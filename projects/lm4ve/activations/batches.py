"""Samples of batches: taking some of them, and what they are called."""

import copy
import re
from pathlib import Path
from typing import Any

from torch import Tensor


def sample_name(output: Any, number: int) -> str:
    """What a sample is called in file names: by its file, its scene or its number."""
    if isinstance(output, dict):
        name = getattr(output.get('scene'), 'scene_id', None)
    else:
        get = getattr(output, 'get', lambda key: None)
        name = next(
            (Path(str(v)).stem for v in map(get, ('img_path', 'filename')) if v), None
        )
        found = get('sample_idx')
        number = number if found is None else int(found)
    # A number too: files of two classes may share a name.
    name = f'{number:05d}' if name is None else f'{number:05d}_{name}'
    return safe_name(name)


def safe_name(name: str) -> str:
    """A name with nothing but letters, digits, `_`, `.` and `-`."""
    return re.sub(r'[^\w.-]+', '_', name)


def take(data: Any, rows: list[int], count: int) -> Any:
    """Some samples of a batch.

    Args:
        data (Any): A batch: tensors ``[count, ...]`` and lists of ``count`` entries,
            at any depth of dicts.
        rows (list[int]): Which.
        count (int): Samples of the batch.

    Returns:
        Any: Of the same structure. Entries that are not tensors are copied, since
        models write predictions into them.
    """
    if isinstance(data, Tensor):
        return data[rows] if data.dim() and len(data) == count else data
    if isinstance(data, dict):
        return type(data)((k, take(v, rows, count)) for k, v in data.items())
    if isinstance(data, (list, tuple)) and len(data) == count:
        return [
            v if isinstance(v, Tensor) else copy.deepcopy(v)
            for v in (data[i] for i in rows)
        ]
    return data
