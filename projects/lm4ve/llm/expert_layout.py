"""Join the stored matrices of experts into the tensors that ``transformers``' layers have.

Most files have a matrix for each expert: ``experts.0.gate_proj``, ``experts.0.up_proj``,
...; a layer, and some files, have all experts' matrices in one tensor. The names are
translated while reading, so that only this file has those of single experts.
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
# A matrix of an expert -> the joined tensor, and its slot in it.
_JOINED = {
    'gate_proj': ('gate_up_proj', 0),
    'w1': ('gate_up_proj', 0),
    'up_proj': ('gate_up_proj', 1),
    'w3': ('gate_up_proj', 1),
    'down_proj': ('down_proj', 0),
    'w2': ('down_proj', 0),
}
# A joined tensor -> how many matrices of each expert it holds.
_SLOTS = {
    'gate_up_proj': 2,
    'down_proj': 1,
}
#: (expert, slot) -> the function that reads the matrix.
Matrices = Mapping[tuple[int, int], Callable[[], Tensor]]


def join_experts(tensors: Tensors) -> Tensors:
    """Return a checkpoint's tensors with the matrices of experts joined, if it has any.

    Nothing is read here; a joined tensor reads its matrices when it is read.

    Raises:
        CheckpointError: When a joined tensor is read: an expert is missing or differs
            from the others.
    """
    if not any('.experts.' in name for name in tensors):
        return tensors
    joined: dict[str, Callable[[], Tensor]] = {}
    experts: dict[str, dict[tuple[int, int], Callable[[], Tensor]]] = {}
    for stored, read in tensors.items():
        name = stored.replace('.block_sparse_moe.', '.mlp.')  # mixtral's
        match = _EXPERT.fullmatch(name)
        if match is None or match[3] not in _JOINED:
            joined[name] = read
            continue
        target, slot = _JOINED[match[3]]
        target_name = f'{match[1]}.{target}'
        expert = int(match[2])
        experts.setdefault(target_name, {})[expert, slot] = read
    for name, matrices in experts.items():
        joined[name] = partial(_join, name, matrices)
    return joined


def _join(name: str, matrices: Matrices) -> Tensor:
    """Read the matrices of all experts into one tensor ``[experts, rows, columns]``.

    Where a tensor holds two matrices of each expert (gate and up), the rows of the second
    follow those of the first. Matrices are read one at a time, so that the joined tensor
    and one of them are in memory, not all of them.

    Args:
        name (str): The name of the joined tensor.
        matrices (Matrices): The functions that read the matrices, by expert and slot.

    Raises:
        CheckpointError: An expert is missing or differs from the others.
    """
    error = CheckpointError(
        f"An expert of '{name}' is missing or differs from the others."
    )
    slots = _SLOTS[name.rpartition('.')[2]]
    count = len(matrices) // slots
    order = list(product(range(count), range(slots)))
    if sorted(matrices) != order:
        raise error
    first = matrices[0, 0]()
    joined = torch.empty(len(order), *first.shape, dtype=first.dtype)
    for target, key in zip(joined, order, strict=True):
        matrix = matrices[key]()
        if matrix.shape != first.shape or matrix.dtype != first.dtype:
            raise error
        target.copy_(matrix)
    # [experts * slots, rows, columns] -> [experts, slots * rows, columns]
    return joined.view(count, -1, *first.shape[1:])
