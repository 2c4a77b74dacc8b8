"""Mixtures of experts as they are stored: a matrix an expert, joined as ``transformers`` has them.

Files hold ``experts.0.gate_proj``, ``experts.0.up_proj``, ...; a layer holds all experts'
matrices in one tensor, which some files do too. The names are turned into the layer's while
reading, so that only this file has the others.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import StoredTensor, Tensors

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


class JoinedExperts(Tensors):
    """The tensors of a checkpoint with those of experts joined.

    Args:
        tensors (Tensors): As the files have them.

    Raises:
        CheckpointError: Of a joined tensor, an expert is missing or differs from the others.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._plain: dict[str, str] = {}
        # Joined name -> (expert, place in it) -> stored name.
        self._experts: dict[str, dict[tuple[int, int], str]] = {}
        for stored in tensors:
            name = stored.replace('.block_sparse_moe.', '.mlp.')  # mixtral's
            match = _EXPERT.fullmatch(name)
            if match and match[3] in _JOINED:
                joined, place = _JOINED[match[3]]
                matrices = self._experts.setdefault(f'{match[1]}.{joined}', {})
                matrices[int(match[2]), place] = stored
            else:
                self._plain[name] = stored

    def __getitem__(self, name: str) -> StoredTensor:
        if name in self._plain:
            return self._tensors[self._plain[name]]
        matrices = self._experts[name]
        places = 2 if name.endswith('gate_up_proj') else 1
        count = len(matrices) // places
        order = [(expert, place) for expert in range(count) for place in range(places)]
        parts = [self._tensors[matrices[i]] for i in order if i in matrices]
        shapes = {part.shape for part in parts}
        if len(parts) != len(matrices) or len(shapes) != 1:
            raise CheckpointError(f"An expert of '{name}' is missing or has another shape.")
        rows, *columns = shapes.pop()

        def read() -> Tensor:
            first = parts[0].read()
            joined = torch.empty(len(parts), *first.shape, dtype=first.dtype)
            for target, part in zip(joined, parts, strict=True):
                matrix = part.read()
                if matrix.dtype != first.dtype:
                    raise CheckpointError(f"The experts of '{name}' differ in their type.")
                target.copy_(matrix)
            return joined.view(count, places * rows, *columns)

        return StoredTensor((count, places * rows, *columns), read)

    def __iter__(self) -> Iterator[str]:
        yield from self._plain
        yield from self._experts

    def __len__(self) -> int:
        return len(self._plain) + len(self._experts)
