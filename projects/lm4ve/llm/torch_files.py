"""Open what ``torch.save`` has written, without executing code.

A checkpoint is a pickle, and a pickle can run anything when it is loaded. torch's
``weights_only=True`` builds tensors and plain containers alone. Two kinds of objects are
added here, since published checkpoints hold them, and neither can run code: the command
line of a training script, and numpy's numbers. Of numpy nothing is called with what a
file holds: stand-ins read the numbers.
"""

import argparse
import json
import pickle
import re
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import Tensors

# What torch.load and zipfile raise about bytes that are not what torch.save wrote.
_DAMAGE = (
    *(RuntimeError, ValueError, EOFError, OSError, LookupError, TypeError, AttributeError),
    *(MemoryError, zipfile.BadZipFile),
)
# Bytes that are read at a time.
_CHUNK = 1 << 20
_STORAGE = re.compile(r'/data/\d+$')
_NUMBER = re.compile(r'b1|[iu][1248]|f[248]|c8|c16')


class _NumberType:
    """Takes the place of ``numpy.dtype`` in a pickle."""

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
def safe_loading(path: str | Path, whole: bool = True) -> Iterator[None]:
    """Load a file with ``torch.load(..., weights_only=True)`` inside.

    Args:
        path (str | Path): The file; of an address only unsafe pickles are recognized.
        whole (bool): Compare the checksums of all its parts first, which torch does not.

    Raises:
        CheckpointError: It is damaged, of another format, or holds more than tensors,
            plain containers, numpy's numbers and ``argparse.Namespace``.
    """
    local = Path(path).expanduser()
    is_local = local.is_file()
    zipped = is_local and is_zipped(local)
    try:
        if zipped and whole:
            check_parts(local, whole)
        with torch.serialization.safe_globals(_ALLOWED):
            yield
    except pickle.UnpicklingError as e:
        # The rest of torch's text advises to switch the check off.
        found = re.search(r'GLOBAL (\S+)', str(e))
        what = f"an object of '{found[1]}'" if found else 'more than tensors'
        raise CheckpointError(
            f"'{path}' was not loaded: it holds {what}, and loading such a pickle could run code."
        ) from e
    except _DAMAGE as e:
        if not is_local or isinstance(e, torch.OutOfMemoryError):
            raise
        raise _damaged(local, e) from e


def is_zipped(path: Path) -> bool:
    """Return whether a file has torch's zip format rather than the older pickle.

    Raises:
        CheckpointError: It has neither.
    """
    with open(path, 'rb') as f:
        start = f.read(64)
    if not start.startswith((b'\x80', b'PK')):
        what = 'a Git LFS pointer' if b'//git-lfs' in start else 'neither a zip nor a pickle'
        raise CheckpointError(f"'{path}' is not a checkpoint of torch.save: it is {what}.")
    return start.startswith(b'PK')


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    """Return the error for a file that cannot be read as what it seems to be."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"'{path}' cannot be read and looks truncated or damaged: {reason}.")


def open_torch(path: Path) -> Tensors:
    """List the tensors of a file of ``torch.save``: ``pytorch_model*.bin``, ``*.pth``.

    Files in PyTorch's zip format (1.6 and later) are mapped anew for every tensor. Older
    files have to be read as a whole, with a warning.

    Raises:
        CheckpointError: See :func:`safe_loading`; it holds no named tensors. On reading a tensor:
            it is damaged, or the file has changed.
    """
    if not is_zipped(path):
        text = (
            f'{path} is in the format from before PyTorch 1.6: the whole file is read into memory.'
        )
        warnings.warn(text, stacklevel=2)
        tensors = _load(path, mmap=False)
        return {name: partial(tensors.__getitem__, name) for name in tensors}
    with safe_loading(path, whole=False):
        sums = check_parts(path)
    return {name: partial(_read, path, name, sums) for name in _load(path, mmap=True)}


def check_parts(path: Path, whole: bool = False) -> set[tuple[int, int]]:
    """Compare the checksums of a zip's parts with its directory's, which torch does not.

    Args:
        path (Path): A file of ``torch.save``.
        whole (bool): False leaves out the parts that are tensors.

    Returns:
        set: Size and checksum of each part that is left, to be compared where it is read.

    Raises:
        BadZipFile: They differ, or the zip is compressed: a map would give its bytes for numbers.
    """
    with zipfile.ZipFile(path) as z:
        entries = z.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise zipfile.BadZipFile('it is a compressed zip; write it again with torch.save')
        orders = [z.read(e) for e in entries if e.filename.endswith('/byteorder')]
        whole |= orders not in ([], [sys.byteorder.encode()])  # torch swaps what it reads
        for entry in entries:
            with z.open(entry) as part:
                while (whole or not _STORAGE.search(entry.filename)) and part.read(_CHUNK):
                    pass
    return set() if whole else {(e.file_size, e.CRC) for e in entries}


def _load(path: Path, mmap: bool) -> dict[str, Tensor]:
    with safe_loading(path, whole=not mmap):
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' holds a {type(content).__name__}, not named tensors.")
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _read(path: Path, name: str, sums: set[tuple[int, int]]) -> Tensor:
    tensor = _load(path, mmap=True).get(name)
    if tensor is None:
        raise CheckpointError(f"{path} changed while it was read: '{name}' is gone.")
    if sums and tensor.layout == torch.strided and not tensor.is_meta:
        data = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy().data
        if (len(data), zlib.crc32(data)) not in sums:
            raise CheckpointError(f"'{name}' of {path} is damaged or changed. Fix: copy it again.")
    return tensor


def read_safetensors(path: str | Path) -> dict[str, Any]:
    """Read weights that ``lm4ve export --format safetensors`` wrote.

    Args:
        path (str | Path): The file.

    Returns:
        dict: As a checkpoint: ``state_dict``, and ``meta`` with the file's description.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    try:
        with safe_open(path, framework='pt') as file:
            meta = json.loads((file.metadata() or {}).get('lm4ve', '{}'))
            state: dict[str, Tensor] = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as e:
        raise _damaged(Path(path), e) from e
    classes = meta.get('classes') if isinstance(meta, dict) else None
    dataset = {} if classes is None else {'dataset_meta': dict(classes=classes)}
    return dict(meta=dict(dataset, lm4ve=meta), state_dict=state)
