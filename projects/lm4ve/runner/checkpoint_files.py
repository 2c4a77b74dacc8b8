"""Read and write checkpoint files, without executing code.

A file that is missing, damaged, unsafe (:mod:`lm4ve.llm.torch_files`) or of another model
ends in one message that says which it is.
"""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.blocks.provenance import SOURCE_KEY, accept_records
from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.files import write_atomically
from lm4ve.llm.torch_files import is_safetensors, is_zipped, read_safetensors, safe_loading

# Where training scripts put the model's state, in the order of looking.
_STATE_KEYS = ('model', 'state_dict', 'module', 'base_model', 'model_state_dict')
_EMA_KEYS = ('model_ema',)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint without executing code.

    Tensors stay in the file (memory-mapped) until they are used, so that an
    optimizer's state or an average that is not wanted costs no memory.

    Args:
        path (str | Path): A file written by ``torch.save``.

    Returns:
        dict: Its content, tensors on the CPU.

    Raises:
        CheckpointError: There is no such file, it is damaged, not safe to
            load (:func:`lm4ve.llm.torch_files.safe_loading`), or no dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"The checkpoint '{path}' does not exist. Fix: correct the path.")
    if is_safetensors(path):
        return read_safetensors(path)
    with safe_loading(path):
        content = torch.load(
            path, map_location='cpu', mmap=is_zipped(path) or None, weights_only=True
        )
    if not isinstance(content, dict):
        raise CheckpointError(
            f"'{path}' holds a {type(content).__name__}, expected a dict of "
            f'tensors or one with the key {", ".join(map(repr, _STATE_KEYS))}.'
        )
    return content


def meta_of(checkpoint: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return a checkpoint's ``meta``, or a dict within it; empty where there is none."""
    found: Any = checkpoint
    for key in ('meta', *keys):
        found = found.get(key)
        if not isinstance(found, dict):
            return {}
    return dict(found)


def select_state(
    checkpoint: dict[str, Any], ema: bool = False, origin: str = 'The checkpoint'
) -> dict[str, Tensor]:
    """Find the model's state in a training checkpoint.

    Args:
        checkpoint (dict): What :func:`read_checkpoint` returns.
        ema (bool): Take the moving average instead of the weights.
        origin (str): What the message calls the file.

    Returns:
        dict[str, Tensor]: Tensors by name, without the ``module.`` of
        distributed training.

    Raises:
        UserError: There is no state, or no average where one is asked for.
    """
    wanted = _EMA_KEYS if ema else _STATE_KEYS
    bare = {} if ema else checkpoint
    state = next((checkpoint[k] for k in wanted if k in checkpoint), bare)
    if not _all_tensors(state):
        raise UserError(
            f'{origin} has no {"moving average" if ema else "model state"}: '
            f'expected a dict of tensors under {", ".join(wanted)}'
            f'{"" if ema else ", or nothing but tensors"}; found the keys '
            f'{listing(list(checkpoint), 20)}.'
            f'{" Fix: leave out the flag for the average." if ema else ""}'
        )
    prefix = 'module.'
    if all(k.startswith(prefix) for k in state):
        state = {k[len(prefix) :]: v for k, v in state.items()}
    return dict(state)


def _all_tensors(state: object) -> bool:
    return (
        isinstance(state, dict)
        and bool(state)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    )


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the model's state of a checkpoint file.

    Raises:
        CheckpointError: See :func:`read_checkpoint`.
        UserError: See :func:`select_state`.
    """
    return select_state(read_checkpoint(path), origin=f"'{path}'")


def load_strictly(
    model: nn.Module, state: dict[str, Tensor], origin: str, optional: Sequence[str] = ()
) -> None:
    """Load a state; refuse it if a tensor is missing, unknown or of another shape.

    MMEngine's ``load_checkpoint`` only logs what does not fit, and goes on with
    weights that were never trained.

    Args:
        model (nn.Module): The model to load into.
        state (dict[str, Tensor]): Tensors by the model's names.
        origin (str): What the message calls the file.
        optional (Sequence[str]): Endings of names that may be missing.

    Raises:
        CheckpointError: Tensors are missing, unknown, of another shape or another kind of
            numbers; the message names them.
    """
    _refuse_other_numbers(model, state, origin)
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as e:  # torch lists the shapes that differ, one a line
        lines = [line.strip().rstrip('.') for line in str(e).splitlines()]
        found = listing([x for x in lines if x.startswith('size')] or lines, 3)
    else:
        missing = [k for k in missing if not k.endswith(tuple(optional))]
        if not missing and not unknown:
            return
        found = _difference(missing, unknown)
    raise CheckpointError(
        f"{origin} is of another model than the config's: {found}. Fix: give the "
        'config that it was trained with, with the same overrides (--cfg-options). '
        'To load what fits and leave the rest untrained, a tool that evaluates takes '
        '--allow-partial.'
    )


def load_partly(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load the tensors of a state that fit, and warn of the others.

    Args:
        model (nn.Module): The model to load into.
        state (dict[str, Tensor]): Tensors by the model's names.
        origin (str): What the warning calls the file.

    Raises:
        CheckpointError: It was made with other frozen weights, or has other kinds of numbers.
    """
    state = dict(state)
    _refuse_other_numbers(model, state, origin)
    accept_records(model, state)
    mine = model.state_dict()
    fits = {
        k: v
        for k, v in state.items()
        if k not in mine or k.endswith(SOURCE_KEY) or v.shape == mine[k].shape
    }
    missing, unknown = model.load_state_dict(fits, strict=False)
    if missing or unknown:
        print_log(
            f'{origin} was loaded in part: {_difference(missing, unknown)}.',
            logger='current',
            level=logging.WARNING,
        )


def _refuse_other_numbers(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Refuse tensors that torch cannot copy, or would convert without a word.

    Raises:
        CheckpointError: It names them.
    """
    own = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    wrong = []
    for name, tensor in state.items():
        mine = own.get(name)
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            wrong.append(f'{name} (sparse, quantized or without values)')
        elif mine is not None and mine.is_floating_point() != tensor.is_floating_point():
            wrong.append(f'{name} ({tensor.dtype}, expected {mine.dtype})')
    if wrong:
        raise CheckpointError(
            f'{origin} has tensors of other kinds of numbers than the model: {listing(wrong, 3)}. '
            'Fix: save its state_dict again as plain dense tensors.'
        )


def _difference(missing: Sequence[str], unknown: Sequence[str]) -> str:
    return (
        f'it lacks {len(missing)} tensor(s) ({listing(missing, 3) or "none"}) and '
        f'has {len(unknown)} more ({listing(unknown, 3) or "none"})'
    )


def write_checkpoint(state: dict[str, Tensor], meta: dict[str, Any], path: str | Path) -> int:
    """Write ``dict(meta=..., state_dict=...)``, or leave ``path`` as it was.

    Args:
        state (dict[str, Tensor]): Tensors by name.
        meta (dict): Plain data, so that the file loads with
            ``weights_only=True``.
        path (str | Path): Where to.

    Returns:
        int: The file's size in bytes.

    Raises:
        UserError: It cannot be written.
    """
    content = dict(meta=meta, state_dict={k: _own(v) for k, v in state.items()})
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with buffer.getbuffer() as data:
        write_atomically(data, path)
        return len(data)


def _own(tensor: Tensor) -> Tensor:
    """Return a tensor without the rest of the storage that ``torch.save`` would write."""
    tensor = tensor.detach().cpu()
    if tensor.untyped_storage().nbytes() > tensor.nbytes:
        return tensor.clone()
    return tensor
