"""Mixtures of experts as they are stored: a matrix an expert, joined as ``transformers`` has them.

Files hold ``experts.0.gate_proj``, ``experts.0.up_proj``, ...; a layer holds all
experts' matrices in one tensor, which some files do too. The names are turned into the
layer's while reading, so that only this file has the others.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import Tensors

_EXPERT = re.compile(r'(.*\.experts)\.(\d{1,5})\.(\w+)\.weight')
# A matrix of an expert -> the joined tensor, and its place in it.
_JOINED = dict(
    **dict.fromkeys(('gate_proj', 'w1'), ('gate_up_proj', 0)),
    **dict.fromkeys(('up_proj', 'w3'), ('gate_up_proj', 1)),
    **dict.fromkeys(('down_proj', 'w2'), ('down_proj', 0)),
)


def join_experts(tensors: Tensors) -> Tensors:
    """Join the matrices of experts among the tensors of a checkpoint.

    Raises:
        CheckpointError: When a joined tensor is read: an expert is missing or differs
            from the others.
    """
    joined: dict[str, Callable[[], Tensor]] = {}
    # Joined name -> (expert, place in it) -> the function that reads the matrix.
    experts: dict[str, dict[tuple[int, int], Callable[[], Tensor]]] = {}
    for stored, read in tensors.items():
        name = stored.replace('.block_sparse_moe.', '.mlp.')  # mixtral's
        match = _EXPERT.fullmatch(name)
        if match and match[3] in _JOINED:
            target, place = _JOINED[match[3]]
            experts.setdefault(f'{match[1]}.{target}', {})[int(match[2]), place] = read
        else:
            joined[name] = read
    return joined | {
        name: partial(_join, name, parts) for name, parts in experts.items()
    }


def _join(name: str, parts: Mapping[tuple[int, int], Callable[[], Tensor]]) -> Tensor:
    error = CheckpointError(
        f"An expert of '{name}' is missing or differs from the others."
    )
    places = 2 if name.endswith('gate_up_proj') else 1
    count = len(parts) // places
    if sorted(parts) != list(product(range(count), range(places))):
        raise error
    first = parts[0, 0]()
    joined = torch.empty(len(parts), *first.shape, dtype=first.dtype)
    for target, part in zip(joined, sorted(parts), strict=True):
        matrix = parts[part]()
        if matrix.shape != first.shape or matrix.dtype != first.dtype:
            raise error
        target.copy_(matrix)
    return joined.view(count, -1, *first.shape[1:])
