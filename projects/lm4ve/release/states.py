"""A model's tensors for another machine, and those of its frozen blocks."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.provenance import SOURCE_KEY, decode_source, encode_source
from lm4ve.llm.fingerprint import fingerprint, smallest_exact_dtype


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state for another machine: records without folders of this one."""
    state = model.state_dict()
    for name in state:
        owner, _, key = name.rpartition('.')
        if key != SOURCE_KEY:
            continue
        frozen = frozen_tensors(model.get_submodule(owner))
        record = without_folder(decode_source(state[name]))
        record['embedded'] = fingerprint(sorted(frozen.items()))
        state[name] = encode_source(record)
    return state


def frozen_state(model: nn.Module, half: bool = False) -> tuple[dict[str, Tensor], int]:
    """Collect the frozen tensors of all blocks, by their names in the file.

    Args:
        model (nn.Module): The model.
        half (bool): Store fp32 tensors in 16 bits where that loses nothing.

    Returns:
        tuple[dict[str, Tensor], int]: The tensors, and how many 16 bits would have
        changed.
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
    """Reduce the place in a block's record to the name of its folder or file.

    Where the language model lay on one machine is of no use elsewhere.
    """
    record = dict(source)
    path = Path(source['source']).expanduser()
    if path.exists():
        record['source'] = path.resolve().name
    return record
