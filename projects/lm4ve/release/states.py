"""A model's tensors for another machine, and those of its frozen blocks."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.record import EMBEDDED
from lm4ve.blocks.record_text import KEY, encode_record
from lm4ve.llm.fingerprint import fingerprint, smallest_exact_dtype


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state for use on another machine.

    It is the state dict with other records of its blocks: a record names the language
    model without its folder, and has the fingerprint of the block's frozen tensors as
    'embedded', by which they are checked when they are loaded.
    """
    state = model.state_dict()
    for path, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, LLMBlock):
            continue
        frozen = frozen_tensors(module)
        record = without_folder(module.record())
        record[EMBEDDED] = fingerprint(sorted(frozen.items()))
        name = f'{path}.{KEY}' if path else KEY
        state[name] = encode_record(record)
    return state


def frozen_state(model: nn.Module, half: bool = False) -> tuple[dict[str, Tensor], int]:
    """Collect the frozen tensors of all blocks, by their names in a state dict.

    Args:
        model (nn.Module): The model.
        half (bool): Convert fp32 tensors to 16 bits where no value changes.

    Returns:
        tuple[dict[str, Tensor], int]: The tensors, and how many stay in fp32 although
        ``half`` is set, since 16 bits would change them.
    """
    state = {}
    kept = 0
    for path, module in model.named_modules():
        if not isinstance(module, LLMBlock):
            continue
        prefix = f'{path}.' if path else ''
        for name, tensor in module.frozen_state().items():
            if half and tensor.dtype == torch.float32:
                tensor = tensor.to(smallest_exact_dtype(tensor))
                if tensor.dtype == torch.float32:
                    kept += 1
            state[f'{prefix}{name}'] = tensor
    return state, kept


def without_folder(source: dict) -> dict:
    """Return a copy of a block's record in which a path is reduced to its last part.

    The place of the language model on this machine is of no use elsewhere, and private.
    A hub id stays as it is.
    """
    record = dict(source)
    path = Path(source['source']).expanduser()
    if path.exists():
        record['source'] = path.resolve().name
    return record
