"""Open what ``torch.save`` has written, without executing code.

A checkpoint is a pickle, and a pickle can run anything when it is loaded. torch's
``weights_only=True`` builds tensors and plain containers alone. Two kinds of objects are
added here, since published checkpoints hold them, and neither can run code: the command
line of a training script, and numpy's numbers. Of numpy nothing is called with what a
file says: stand-ins read the numbers.
"""

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lm4ve.errors import CheckpointError

# What torch.load raises about bytes that are not what it wrote.
DAMAGE = (RuntimeError, ValueError, EOFError, OSError, LookupError, TypeError, AttributeError)
_NUMBER = re.compile(r'b1|[iu][1248]|f[248]|c8|c16')


class _NumberType:
    """Takes the place of ``numpy.dtype`` where a pickle asks for it."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError('a type of numpy that is no number')
        self.code = code

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] == '>':
            self.code = f'>{self.code}'


def _number(kind: object, data: object) -> bool | int | float | complex:
    """Take the place of ``numpy.core.multiarray.scalar``."""
    if not isinstance(kind, _NumberType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError('an object of numpy that is no number')
    value: bool | int | float | complex = np.frombuffer(data, kind.code, 1)[0].item()
    return value


_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    # Training scripts of timm's descent store their command line. A Namespace sets
    # attributes on itself and does nothing else.
    argparse.Namespace,
    (_NumberType, 'numpy.dtype'),
    (_number, 'numpy.core.multiarray.scalar'),
    (_number, 'numpy._core.multiarray.scalar'),
]


@contextmanager
def safe_loading(path: str | Path) -> Iterator[None]:
    """Load a file with ``torch.load(..., weights_only=True)`` inside.

    Args:
        path (str | Path): The file. An address is taken too; then only the last of the
            errors below is recognized.

    Raises:
        CheckpointError: It is damaged, of another format, or holds more than tensors,
            plain containers, numpy's numbers and ``argparse.Namespace``.
    """
    local = Path(path).expanduser()
    is_local = local.is_file()
    if is_local:
        is_zipped(local)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            yield
    except pickle.UnpicklingError as e:
        raise unsafe(path, e) from e
    except (*DAMAGE, MemoryError) as e:
        if not is_local or isinstance(e, torch.OutOfMemoryError):
            raise
        raise damaged(local, e) from e


def is_zipped(path: Path) -> bool:
    """Return whether a file has torch's zip format rather than the older pickle.

    Raises:
        CheckpointError: It has neither, or holds a program (TorchScript).
    """
    with open(path, 'rb') as f:
        start = f.read(64)
    if start.startswith(b'\x80'):
        return False
    if start.startswith(b'PK'):
        if not _is_program(path):
            return True
        what = 'a TorchScript archive, which holds a program beside the weights'
    elif start.startswith(b'version https://git-lfs'):
        what = 'a Git LFS pointer in the place of the weights'
    else:
        what = 'neither a zip nor a pickle, so truncated, damaged or of another format'
    raise CheckpointError(
        f"'{path}' ({path.stat().st_size:,} bytes) is not a checkpoint of torch.save: it is {what}."
    )


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as z:
            return any(name.endswith('/constants.pkl') for name in z.namelist())
    except (zipfile.BadZipFile, ValueError, RuntimeError, OSError):
        return False  # torch says what is wrong with it


def unsafe(path: str | Path, error: Exception) -> CheckpointError:
    """Return the error for a pickle that holds more than it may."""
    # The rest of torch's text advises to switch the check off.
    found = re.search(r'GLOBAL (\S+)', str(error))
    what = f"an object of '{found[1]}'" if found else 'more than tensors'
    return CheckpointError(
        f"'{path}' was not loaded: it holds {what}, and loading such a pickle could run code. "
        'Fix: use safetensors, or save its tensors alone to a new file where you trust its origin.'
    )


def damaged(path: Path, error: BaseException) -> CheckpointError:
    """Return the error for a file that cannot be read as what it seems to be."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    size = f'{path.stat().st_size:,} bytes' if path.is_file() else 'now gone'
    return CheckpointError(
        f"'{path}' ({size}) cannot be read and looks truncated or damaged: {reason}."
    )


def is_safetensors(path: str | Path) -> bool:
    """Return whether a name is one of a safetensors file."""
    return str(path).endswith('.safetensors')


def read_safetensors(path: str | Path) -> dict[str, Any]:
    """Read weights that ``lm4ve export --format safetensors`` wrote.

    Args:
        path (str | Path): The file.

    Returns:
        dict: As a checkpoint: ``state_dict``, and ``meta`` with what the file says of itself.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    try:
        with safe_open(path, framework='pt') as file:
            told = (file.metadata() or {}).get('lm4ve', '{}')
            state: dict[str, Tensor] = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            meta = json.loads(told)
    except (SafetensorError, OSError, ValueError) as e:
        raise damaged(Path(path), e) from e
    classes = meta.get('classes') if isinstance(meta, dict) else None
    dataset = {} if classes is None else {'dataset_meta': dict(classes=classes)}
    return dict(meta=dict(dataset, lm4ve=meta), state_dict=state)
