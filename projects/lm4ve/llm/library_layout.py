"""Stored weights under the names and in the form that ``transformers``' own model has.

Releases name and cut weights in their own ways: ``h.3.attn`` for ``layers.3.self_attn``,
a matrix an expert, one matrix for queries, keys and values. ``transformers`` has a table
of conversions for each family and applies it where it loads a whole model. Here the
table is applied to the tensors of a checkpoint one at a time, when they are read.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from lm4ve.llm.sources import Tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def convert_to_library(tensors: Tensors, model: 'PreTrainedModel') -> Tensors:
    """Return a checkpoint's tensors as a family's own model has them.

    Args:
        tensors (Tensors): As they are stored. Tensors that have the model's names
            already stay as they are.
        model (PreTrainedModel): The model, which may be on the meta device.
    """
    conversions: Any = get_model_conversion_mapping(model)
    renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    by_pattern = {}
    for converter in converters:
        for pattern in converter.source_patterns:
            by_pattern[pattern] = converter
    own_names = model.state_dict()

    converted: dict[str, Callable[[], Tensor]] = {}
    # First target -> its converter, and the stored tensors that it reads by pattern.
    groups: dict[str, _Group] = {}
    # In the order of the numbers in the names, which is that of a list of experts.
    for stored in sorted(tensors, key=dot_natural_key):
        read = tensors[stored]
        name, matched = rename_source_key(
            stored, renamings, converters, model.base_model_prefix, own_names
        )
        if stored in own_names and name not in own_names:
            converted[stored] = read
        elif matched is None:
            converted[name] = read
        else:
            if name not in groups:
                groups[name] = _Group(name, by_pattern[matched], model)
            groups[name].sources.append((stored, matched, read))
    for group in groups.values():
        for name in group.targets():
            converted[name] = partial(group.read, name)
    return converted


class _Group:
    """Stored tensors that are converted together.

    Args:
        first (str): The name of the first tensor that they become.
        converter (WeightConverter): What the library does to them.
        model (PreTrainedModel): The model whose tensors they become.
    """

    def __init__(
        self, first: str, converter: WeightConverter, model: 'PreTrainedModel'
    ) -> None:
        self.first = first
        self.converter = converter
        self.model = model
        self.sources: list[tuple[str, str, Callable[[], Tensor]]] = []

    def targets(self) -> Iterator[str]:
        """Yield the names of all tensors that they become."""
        patterns = self.converter.target_patterns
        for pattern in patterns:
            yield self.first.replace(patterns[0], pattern)

    def read(self, name: str) -> Tensor:
        """Read and convert them, and return the tensor of one name."""
        converter: Any = deepcopy(self.converter)  # which keeps what it has read
        for stored, pattern, read in self.sources:
            converter.add_tensor(self.first, stored, pattern, read)
        made = converter.convert(self.first, model=self.model, config=self.model.config)
        tensor = made[name]
        if isinstance(tensor, list):
            tensor = tensor[0]
        result: Tensor = tensor
        return result
