"""Mixtures of experts as they are stored: a matrix an expert, joined as ``transformers`` has them.

Files hold ``experts.0.gate_proj``, ``experts.0.up_proj``, ...; a layer holds all experts'
matrices in one tensor, which some files do too. The names are turned into the layer's while
reading, so that only this file knows of the others.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.readers import TensorReader

_EXPERT = re.compile(r'(.*\.experts)\.(\d{1,5})\.(\w+)\.weight')
# A matrix of an expert -> the joined tensor, and its place in it.
_JOINED = dict(
    gate_proj=('gate_up_proj', 0),
    up_proj=('gate_up_proj', 1),
    down_proj=('down_proj', 0),
    w1=('gate_up_proj', 0),
    w3=('gate_up_proj', 1),
    w2=('down_proj', 0),
)


class JoinedExperts:
    """A reader's tensors with those of experts joined.

    Args:
        reader (TensorReader): The files.
    """

    def __init__(self, reader: TensorReader) -> None:
        self.reader = reader
        self._plain: dict[str, str] = {}
        # Joined name -> expert -> place -> stored name.
        self._experts: dict[str, dict[int, dict[int, str]]] = {}
        for stored in reader.names():
            name = stored.replace('.block_sparse_moe.', '.mlp.')  # mixtral's
            match = _EXPERT.fullmatch(name)
            if match and match[3] in _JOINED:
                joined, place = _JOINED[match[3]]
                expert = self._experts.setdefault(f'{match[1]}.{joined}', {})
                expert.setdefault(int(match[2]), {})[place] = stored
            else:
                self._plain[name] = stored

    def names(self) -> Iterable[str]:
        return [*self._plain, *self._experts]

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._plain:
            return self.reader.shape(self._plain[name])
        parts = self._parts(name)
        shapes = {self.reader.shape(part) for part in parts[0]}
        if len(shapes) > 1:
            raise CheckpointError(f"The matrices of an expert of '{name}' have unequal shapes.")
        rows, columns = shapes.pop()
        return len(parts), len(parts[0]) * rows, columns

    def read(self, name: str) -> Tensor:
        if name in self._plain:
            return self.reader.read(self._plain[name])
        shape = self.shape(name)
        joined: Tensor | None = None
        for number, expert in enumerate(self._parts(name)):
            for place, stored in enumerate(expert):
                matrix = self.reader.read(stored)
                if joined is None:
                    joined = torch.empty(shape, dtype=matrix.dtype)
                target = joined[number].chunk(len(expert))[place]
                if matrix.shape != target.shape or matrix.dtype != joined.dtype:
                    # `copy_` would spread a smaller matrix over a larger one.
                    raise CheckpointError(f"'{stored}' differs in shape or type from expert 0's.")
                target.copy_(matrix)
        assert joined is not None
        return joined

    def _parts(self, name: str) -> list[list[str]]:
        """Stored names of each expert's matrices, in the order in which they are joined."""
        experts = self._experts[name]
        places = set(range(2 if name.endswith('gate_up_proj') else 1))
        found = [experts.get(i, {}) for i in range(len(experts))]
        if any(set(expert) != places for expert in found):
            raise CheckpointError(f"An expert of '{name}' is missing, or one of its matrices.")
        return [[expert[place] for place in sorted(expert)] for expert in found]


def join_experts(reader: TensorReader) -> TensorReader:
    """Return a reader that has experts joined, the same one where there are none."""
    if any('.experts.' in name for name in reader.names()):
        return JoinedExperts(reader)
    return reader
