"""The core that all converters share: read safely, rename by a table, write.

A converter is a table. Every key of the file is either renamed by it or dropped
for a stated reason; a key that is neither stops the conversion, since a tensor
that is silently left behind is a model that silently differs.
"""

import argparse
import io
import pickle
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lm4ve.engine.checkpoint_hooks import write_atomically
from lm4ve.errors import CheckpointError, UserError

# Training scripts of timm's descent store their command line. A Namespace sets
# attributes on itself and does nothing else, so that reading one runs no code;
# nothing else is allowed beside tensors and plain containers.
_SAFE_CLASSES = [argparse.Namespace]
# Where training scripts put the model's state, in the order of looking.
_STATE_KEYS = ('model', 'state_dict', 'module', 'base_model')
_EMA_KEYS = ('model_ema',)


@dataclass(frozen=True)
class Rules:
    """What becomes of a file's keys. Patterns match whole keys; first wins.

    Attributes:
        renames (Sequence[tuple[str, str]]): Pattern and replacement, as of
            ``re.Match.expand``.
        dropped (Sequence[tuple[str, str]]): Pattern and the reason why such a
            key is left out.
        required (Sequence[str]): New names that must come out.
    """

    renames: Sequence[tuple[str, str]]
    dropped: Sequence[tuple[str, str]] = ()
    required: Sequence[str] = ()


def rename(
    state: dict[str, Tensor], rules: Rules, origin: str = 'The checkpoint'
) -> tuple[dict, dict]:
    """Rename a state by a table and account for every key of it.

    Args:
        state (dict[str, Tensor]): Tensors by the file's names.
        rules (Rules): The table.
        origin (str): What the message calls the file.

    Returns:
        tuple[dict[str, Tensor], dict[str, str]]: Tensors by new names, and the
        reason for each dropped key.

    Raises:
        CheckpointError: A key is in neither table, two keys get the same name,
            or a required one is missing; all of them are listed.
    """
    renamed, sources, dropped, unknown = {}, {}, {}, []
    for key, tensor in state.items():
        name = _first(rules.renames, key, expand=True)
        if name is None:
            reason = _first(rules.dropped, key, expand=False)
            if reason is None:
                unknown.append(key)
            else:
                dropped[key] = reason
            continue
        if name in renamed:
            raise CheckpointError(
                f"{origin}: '{sources[name]}' and '{key}' would both become "
                f"'{name}'. Fix: the file is of another model than this "
                'converter is for.'
            )
        renamed[name], sources[name] = tensor, key
    if unknown:
        raise CheckpointError(
            f'{origin} has {len(unknown)} key(s) that this converter neither '
            f'maps nor knows to be superfluous: {listing(unknown)}. Nothing '
            'was written. Fix: use the converter of that model, or extend its '
            'table in lm4ve/converters.'
        )
    missing = [n for n in rules.required if n not in renamed]
    if missing:
        raise CheckpointError(
            f'{origin} has nothing that becomes {listing(missing)}. Expected '
            'a whole model. Fix: check that the file is complete and of the '
            'model that this converter is for.'
        )
    return renamed, dropped


def _first(table: Iterable[tuple[str, str]], key: str, expand: bool):
    for pattern, value in table:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(value) if expand else value
    return None


def listing(names: Sequence[str], most: int = 20) -> str:
    """Join names for a message; of very many, the first ones."""
    text = ', '.join(sorted(names)[:most])
    more = len(names) - most
    return f'{text} and {more} more' if more > 0 else text


def read_checkpoint(path: str | Path) -> dict:
    """Read a training checkpoint without executing code.

    Tensors stay in the file (memory-mapped) until they are used, so that an
    optimizer's state or an average that is not wanted costs no memory.

    Args:
        path (str | Path): A file written by ``torch.save``.

    Returns:
        dict: Its content, tensors on the CPU.

    Raises:
        CheckpointError: There is no such file, it is damaged, holds more than
            tensors and plain containers, or is no dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"The checkpoint '{path}' does not exist. Fix: correct the path."
        )
    try:
        with torch.serialization.safe_globals(_SAFE_CLASSES):
            content = torch.load(
                path,
                map_location='cpu',
                mmap=zipfile.is_zipfile(path) or None,
                weights_only=True,
            )
    except pickle.UnpicklingError as e:
        name = re.search(r'GLOBAL (\S+)', str(e))
        what = f"an object of '{name[1]}'" if name else 'more than tensors'
        raise CheckpointError(
            f"'{path}' was not loaded: it holds {what}, and loading such a "
            'pickle could run code. Expected tensors, plain containers and '
            'argparse.Namespace. Fix: if you trust its origin, load it once '
            'with weights_only=False and save its model state alone to a new '
            'file.'
        ) from e
    except (RuntimeError, ValueError, EOFError, OSError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise CheckpointError(
            f"'{path}' ({path.stat().st_size:,} bytes) cannot be read and "
            f'looks truncated or damaged: {reason}. Fix: download or copy it '
            'again.'
        ) from e
    if not isinstance(content, dict):
        raise CheckpointError(
            f"'{path}' holds a {type(content).__name__}, expected a dict of "
            'tensors or one with the key '
            f'{", ".join(map(repr, _STATE_KEYS))}.'
        )
    return content


def select_state(
    checkpoint: dict, ema: bool = False, origin: str = 'The checkpoint'
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
            f'{listing(list(map(str, checkpoint)))}.'
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
        and all(isinstance(v, Tensor) for v in state.values())
    )


def write_checkpoint(state: dict[str, Tensor], meta: dict, path: str | Path) -> int:
    """Write ``dict(meta=..., state_dict=...)``, or leave ``path`` as it was.

    Args:
        state (dict[str, Tensor]): Tensors by name.
        meta (dict): Plain data, so that the file loads with
            ``weights_only=True``.
        path (str | Path): Where to.

    Returns:
        int: The file's size in bytes.

    Raises:
        CheckpointError: It cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(
        dict(meta=meta, state_dict={k: _own(v) for k, v in state.items()}), buffer
    )
    with buffer.getbuffer() as data:
        write_atomically(data, path)
        return len(data)


def _own(tensor: Tensor) -> Tensor:
    """The tensor alone: ``torch.save`` writes all that a view is a view of."""
    tensor = tensor.detach().cpu()
    if tensor.untyped_storage().nbytes() > tensor.nbytes:
        return tensor.clone()
    return tensor
