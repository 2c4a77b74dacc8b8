"""Read and write checkpoint files, without executing code.

A file that is missing, damaged, unsafe (:mod:`lm4ve.llm.torch_files`) or of another
model raises an error that names the reason.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.blocks.record import accept_records
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError, UserError, first_line, listing
from lm4ve.files import replacing
from lm4ve.llm.finite import check_finite
from lm4ve.llm.torch_files import is_zipped, load, read_safetensors, safe_loading

# Where training scripts put the model's state, in the order of looking.
_STATE_KEYS = ('model', 'state_dict', 'module', 'base_model', 'model_state_dict')


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
        raise CheckpointError(f"The checkpoint '{path}' does not exist.")
    if path.suffix == '.safetensors':
        return read_safetensors(path)
    with safe_loading(path):
        content = load(path, map_location='cpu', mmap=is_zipped(path) or None)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"'{path}' holds a {type(content).__name__}, expected a dict."
        )
    return content


def meta_of(checkpoint: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return a checkpoint's ``meta``, or the dict at a path of keys in it.

    Returns:
        dict: A copy; an empty one if there is no such dict.
    """
    value: Any = checkpoint
    for key in ('meta', *keys):
        value = value.get(key)
        if not isinstance(value, dict):
            return {}
    return dict(value)


def select_state(
    checkpoint: dict[str, Any], ema: bool = False, origin: str = 'The checkpoint'
) -> dict[str, Tensor]:
    """Find the model's state in a training checkpoint, under the keys that are in use for it.

    Args:
        checkpoint (dict): The result of :func:`read_checkpoint`. It may also be the
            state itself.
        ema (bool): Find the moving average instead of the weights.
        origin (str): The checkpoint's name in the error.

    Returns:
        dict[str, Tensor]: Tensors by name, without the ``module.`` of
        distributed training.

    Raises:
        UserError: There is no state, or with ``ema`` no average.
    """
    if ema:
        keys: tuple[str, ...] = ('model_ema',)
        state = _first_of(checkpoint, keys, {})
        content = 'moving average'
    else:
        keys = _STATE_KEYS
        # A file may also be the state itself.
        state = _first_of(checkpoint, keys, checkpoint)
        content = 'model state'
    if not _is_state(state):
        raise UserError(
            f'{origin} has no {content}: no tensors under {", ".join(keys)}; its keys are '
            f'{listing(list(checkpoint), 20)}.'
        )
    if all(name.startswith('module.') for name in state):
        return {name.removeprefix('module.'): state[name] for name in state}
    return dict(state)


def _first_of(checkpoint: dict[str, Any], keys: Sequence[str], default: Any) -> Any:
    """Return the value of the first of some keys that a checkpoint has, or a default."""
    for key in keys:
        if key in checkpoint:
            return checkpoint[key]
    return default


def _is_state(value: Any) -> bool:
    """Return whether a value is a dict of tensors by name, and not empty."""
    if not isinstance(value, dict) or not value:
        return False
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            return False
    return True


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the model's state of a checkpoint file.

    Raises:
        CheckpointError: See :func:`read_checkpoint`.
        UserError: See :func:`select_state`.
    """
    return select_state(read_checkpoint(path), origin=f"'{path}'")


def load_strictly(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load a state; raise an error if a tensor is missing, unknown or of another shape.

    MMEngine's ``load_checkpoint`` only logs what does not fit, and goes on with
    weights that were never trained.

    Args:
        model (nn.Module): The model to load into. After an error it may hold a part of
            the state.
        state (dict[str, Tensor]): Tensors by the model's names.
        origin (str): The checkpoint's name in the error.

    Raises:
        CheckpointError: Tensors are missing, unknown, of another shape or another kind
            of numbers, or not finite; the message names them.
    """
    _check_tensors(model, state, origin)
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
        difference = _difference(missing, unknown)
    except RuntimeError as e:
        difference = _describe_loading_error(e)
    if difference:
        raise CheckpointError(
            f"{origin} is of another model than the config's: {difference}. Was it trained with "
            'other --cfg-options? --allow-partial evaluates what fits.'
        )


def _describe_loading_error(error: RuntimeError) -> str:
    """Return the reasons of torch's error in ``load_state_dict``, for a message.

    torch lists the tensors of other shapes, one in each line after the first. A module
    with loading of its own may raise an error of one line.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    if len(lines) < 2:
        return first_line(error)
    return listing(lines[1:], 3)


def load_partly(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load the tensors of a state that fit, and warn of the others.

    Args:
        model (nn.Module): The model to load into.
        state (dict[str, Tensor]): Tensors by the model's names.
        origin (str): The checkpoint's name in the warning.

    Raises:
        CheckpointError: The checkpoint was made with other frozen weights, or has
            tensors of other types or with values that are not finite.
    """
    state = dict(state)
    _check_tensors(model, state, origin)
    accept_records(model, state)
    own = model.state_dict()
    for name in own.keys() & state.keys():
        is_record = name.endswith(KEY)
        if not is_record and state[name].shape != own[name].shape:
            del state[name]
    missing, unknown = model.load_state_dict(state, strict=False)
    difference = _difference(missing, unknown)
    if difference:
        text = f'{origin} was loaded in part: {difference}.'
        print_log(text, logger='current', level=logging.WARNING)


def _check_tensors(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Refuse tensors that torch cannot copy, would convert in silence, or that are not finite.

    torch converts floating-point numbers to integers, and the other way round.

    Raises:
        CheckpointError: It names the tensors.
    """
    own = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    wrong = []
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            wrong.append(f'{name} (sparse, quantized or without values)')
            continue
        if name not in own:
            continue
        if own[name].is_floating_point() != tensor.is_floating_point():
            wrong.append(f'{name} ({tensor.dtype}, expected {own[name].dtype})')
    if wrong:
        raise CheckpointError(
            f'{origin} has tensors of other types: {listing(wrong, 3)}.'
        )
    check_finite(state, origin, dict(model.named_buffers()))


def _difference(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """Describe which tensors a checkpoint lacks, and which of its tensors the model lacks.

    Returns:
        str: For a message; '' if there are neither.
    """
    parts = []
    if missing:
        parts.append(f'it lacks {len(missing)} tensor(s) ({listing(missing, 3)})')
    if unknown:
        parts.append(f'it has unknown {len(unknown)} tensor(s) ({listing(unknown, 3)})')
    return ' and '.join(parts)


def write_checkpoint(
    state: dict[str, Tensor], meta: dict[str, Any], path: str | Path
) -> int:
    """Write a checkpoint file ``dict(meta=..., state_dict=...)``, whole or not at all.

    Args:
        state (dict[str, Tensor]): Tensors by name.
        meta (dict): Plain data, so that the file loads with
            ``weights_only=True``.
        path (str | Path): The file. After an error it is as it was.

    Returns:
        int: The file's size in bytes.

    Raises:
        UserError: It cannot be written.
    """
    # Cloned, or `torch.save` would write the whole storage that a view is a part of.
    state = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    with replacing(path) as beside:
        torch.save(dict(meta=meta, state_dict=state), beside)
    return Path(path).stat().st_size
