"""LoRA on the mappers. Imported only where a neck has it, since it needs ``peft``."""

from typing import Any

from torch import nn

from lm4ve.blocks.adapters import add_lora

#: The mappers' names, which are the default targets.
TARGETS = ('mapper_in', 'mapper_out')


def adapt_mappers(
    fields: dict[str, Any], mapper_in: nn.Module, mapper_out: nn.Module
) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Freeze the mappers' own weights, and put LoRA on them.

    Args:
        fields (dict): Fields of :class:`lm4ve.blocks.adapters.LoRA`.
        mapper_in (nn.Module): The mapper before the block.
        mapper_out (nn.Module): The mapper after it.

    Returns:
        tuple: Both with adapters, and what a checkpoint records of these.

    Raises:
        UserError: A field has no such value, or a target matches nothing.
    """
    mappers = nn.ModuleDict(dict(mapper_in=mapper_in, mapper_out=mapper_out))
    record = add_lora(mappers, fields, 'neck.lora', TARGETS, seed=0)
    return mappers['mapper_in'], mappers['mapper_out'], record
