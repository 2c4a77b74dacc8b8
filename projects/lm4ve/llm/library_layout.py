"""Stored weights under the names and in the form that ``transformers``' own model has.

Releases name and cut weights in their own ways: ``h.3.attn`` for ``layers.3.self_attn``,
a matrix an expert, one matrix for queries, keys and values. ``transformers`` has a table
of conversions for each family and applies it where it loads a whole model. Here the
table is applied to the tensors of a checkpoint one at a time, when they are read.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
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
    """Return a checkpoint's tensors under the names and in the form of a family's model.

    No tensor is read here: names lead to functions that read a tensor, before and after.
    A stored name has one of three fates. A name of the model stays, if the library's
    table would turn it into one that the model does not have. Otherwise the name is
    translated, and the tensor is passed on as it is, or, if the table has a converter
    for the name, becomes part of a group that is converted together.

    Args:
        tensors (Tensors): The tensors as they are stored.
        model (PreTrainedModel): The model, which may be on the meta device.

    Returns:
        Tensors: The tensors by the model's names. Reading one of a group reads and
        converts the whole group.
    """
    conversions: Any = get_model_conversion_mapping(model)
    renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    converter_of = {}
    for converter in converters:
        for pattern in converter.source_patterns:
            converter_of[pattern] = converter
    model_state = model.state_dict()

    converted: dict[str, Callable[[], Tensor]] = {}
    # Name of the first tensor that a group becomes -> the group.
    groups: dict[str, _Group] = {}
    # In the order of the numbers in the names, which is that of a list of experts.
    for stored in sorted(tensors, key=dot_natural_key):
        read = tensors[stored]
        # The translated name, and the pattern by which a converter applies to it, if
        # one does; then the name is that of the first tensor that the converter makes.
        name, matched = rename_source_key(
            stored, renamings, converters, model.base_model_prefix, model_state
        )
        if stored in model_state and name not in model_state:
            converted[stored] = read
            continue
        if matched is None:
            converted[name] = read
            continue
        if name not in groups:
            groups[name] = _Group(name, converter_of[matched], model)
        groups[name].sources.append(_Source(stored, matched, read))
    for group in groups.values():
        for name in group.targets():
            converted[name] = partial(group.read, name)
    return converted


@dataclass(frozen=True)
class _Source:
    """A stored tensor that a converter reads.

    Attributes:
        stored (str): Its name in the file.
        pattern (str): The converter's pattern that matches its name.
        read (callable): Reads it.
    """

    stored: str
    pattern: str
    read: Callable[[], Tensor]


@dataclass
class _Group:
    """Stored tensors that one converter of the library turns into one or several of the model.

    Attributes:
        first_target (str): The name of the first tensor that they become, by which the
            library identifies the group.
        converter (WeightConverter): The library's conversion.
        model (PreTrainedModel): The model whose tensors they become.
        sources (list[_Source]): The stored tensors, in the order of their names.
    """

    first_target: str
    converter: WeightConverter
    model: 'PreTrainedModel'
    sources: list[_Source] = field(default_factory=list)

    def targets(self) -> Iterator[str]:
        """Yield the names of all tensors that the group becomes."""
        patterns = self.converter.target_patterns
        for pattern in patterns:
            yield self.first_target.replace(patterns[0], pattern)

    def read(self, target: str) -> Tensor:
        """Read and convert the group, and return one of the tensors that it becomes.

        The others are dropped: each call reads and converts the whole group, so that no
        more than one group is held in memory.

        Args:
            target (str): A name from :meth:`targets`.
        """
        # A copy, since a converter keeps the tensors that are added to it.
        converter: Any = deepcopy(self.converter)
        for source in self.sources:
            converter.add_tensor(
                self.first_target, source.stored, source.pattern, source.read
            )
        converted = converter.convert(
            self.first_target, model=self.model, config=self.model.config
        )
        tensor = converted[target]
        # Some conversions return a list of one tensor.
        if isinstance(tensor, list):
            tensor = tensor[0]
        result: Tensor = tensor
        return result
