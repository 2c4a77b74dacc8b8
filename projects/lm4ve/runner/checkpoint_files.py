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

from lm4ve.blocks.provenance import SOURCE_KEY, accept_records
from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.files import replacing
from lm4ve.llm.finite import check_finite

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
    from lm4ve.llm.torch_files import is_zipped, load, read_safetensors, safe_loading

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
    """Return a checkpoint's ``meta``, or a dict within it; empty where there is none."""
    found: Any = checkpoint
    for key in ('meta', *keys):
        found = found.get(key) if isinstance(found, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def select_state(
    checkpoint: dict[str, Any], ema: bool = False, origin: str = 'The checkpoint'
) -> dict[str, Tensor]:
    """Find the model's state in a training checkpoint.

    Args:
        checkpoint (dict): What :func:`read_checkpoint` returns.
        ema (bool): Take the moving average instead of the weights.
        origin (str): Its name in the error.

    Returns:
        dict[str, Tensor]: Tensors by name, without the ``module.`` of
        distributed training.

    Raises:
        UserError: There is no state, or no average where one is asked for.
    """
    keys = ('model_ema',) if ema else _STATE_KEYS
    state = next(
        (checkpoint[k] for k in keys if k in checkpoint), {} if ema else checkpoint
    )
    tensors = [*state.items()] if isinstance(state, dict) else []
    if not tensors or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors
    ):
        raise UserError(
            f'{origin} has no {"moving average" if ema else "model state"}: no tensors under '
            f'{", ".join(keys)}; its keys are {listing(list(checkpoint), 20)}.'
        )
    if all(k.startswith('module.') for k in state):
        return {k.removeprefix('module.'): v for k, v in state.items()}
    return dict(state)


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
        model (nn.Module): The model to load into.
        state (dict[str, Tensor]): Tensors by the model's names.
        origin (str): Its name in the error.

    Raises:
        CheckpointError: Tensors are missing, unknown, of another shape or another kind
            of numbers, or not finite; the message names them.
    """
    _check_tensors(model, state, origin)
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
        found = _difference(missing, unknown)
    except RuntimeError as e:  # torch lists the shapes that differ, one a line
        found = listing([line.strip() for line in str(e).splitlines()[1:]], 3)
    if found:
        raise CheckpointError(
            f"{origin} is of another model than the config's: {found}. Was it trained with other "
            '--cfg-options? --allow-partial evaluates what fits.'
        )


def load_partly(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load the tensors of a state that fit, and warn of the others.

    Args:
        model (nn.Module): The model to load into.
        state (dict[str, Tensor]): Tensors by the model's names.
        origin (str): Its name in the warning.

    Raises:
        CheckpointError: It was made with other frozen weights, has other kinds of
            numbers, or some that are not finite.
    """
    state = dict(state)
    _check_tensors(model, state, origin)
    accept_records(model, state)
    mine = model.state_dict()
    for name in mine.keys() & state.keys():
        if not name.endswith(SOURCE_KEY) and state[name].shape != mine[name].shape:
            del state[name]
    if found := _difference(*model.load_state_dict(state, strict=False)):
        text = f'{origin} was loaded in part: {found}.'
        print_log(text, logger='current', level=logging.WARNING)


def _check_tensors(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Check for tensors that torch cannot copy, would convert in silence, or are not finite.

    Raises:
        CheckpointError: It names them.
    """
    own = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    wrong = []
    for name, tensor in state.items():
        mine = own.get(name)
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            wrong.append(f'{name} (sparse, quantized or without values)')
        elif (
            mine is not None and mine.is_floating_point() != tensor.is_floating_point()
        ):
            wrong.append(f'{name} ({tensor.dtype}, expected {mine.dtype})')
    if wrong:
        raise CheckpointError(
            f'{origin} has tensors of other types: {listing(wrong, 3)}.'
        )
    check_finite(state, origin, dict(model.named_buffers()))


def _difference(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """Describe the tensors that only one side has, or return nothing."""
    return ' and '.join(
        f'it {verb} {len(names)} tensor(s) ({listing(names, 3)})'
        for verb, names in (('lacks', missing), ('has unknown', unknown))
        if names
    )


def write_checkpoint(
    state: dict[str, Tensor], meta: dict[str, Any], path: str | Path
) -> int:
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
    # Cloned, or `torch.save` would write the whole storage that a view is a part of.
    state = {k: v.detach().cpu().clone() for k, v in state.items()}
    with replacing(path) as beside:
        torch.save(dict(meta=meta, state_dict=state), beside)
    return Path(path).stat().st_size
