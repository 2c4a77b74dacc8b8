"""Open what ``torch.save`` has written, without executing code.

A checkpoint is a pickle, and a pickle can run anything when it is loaded. torch's
``weights_only=True`` builds tensors and plain containers alone; :mod:`.pickled_objects`
adds what published checkpoints hold beside them. :func:`load` is the one call of
``torch.load``.
"""

import json
import pickle
import re
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.pickled_objects import ALLOWED
from lm4ve.llm.sources import Tensors

# What torch.load and zipfile raise about bytes that are not what torch.save wrote.
_DAMAGE = (
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    zipfile.BadZipFile,
)
# Bytes that are read at a time.
_CHUNK = 1 << 20
# A part of the zip that is a tensor's values.
_STORAGE = re.compile(r'/data/\d+$')


def load(
    file: Any, map_location: Any = None, mmap: bool | None = None, **_: object
) -> Any:
    """Load a file as ``torch.load`` does, without executing any code of it.

    Neither the caller nor the environment can choose otherwise: ``weights_only`` and
    ``pickle_module`` are ignored, and torch lets no variable overrule a
    ``weights_only=True`` that stands at the call.

    Args:
        file (str | Path | IO): What ``torch.load`` takes.
        map_location (Any): Passed to ``torch.load``.
        mmap (bool, optional): Passed to ``torch.load``.
        **_: Further arguments of ``torch.load``, which are ignored.

    Raises:
        UnpicklingError: It holds other objects than tensors, plain containers and those
            of :mod:`.pickled_objects`.
    """
    with own_safe_globals():
        return torch.load(file, map_location=map_location, mmap=mmap, weights_only=True)


@contextmanager
def own_safe_globals() -> Iterator[None]:
    """Let torch build the objects in ``ALLOWED`` within this context, by our stand-ins.

    The process's own list of safe objects stays valid, for users who allow a class of
    theirs. But under a name of ours our stand-in counts: MMEngine's main branch and its
    forks add Python's ``getattr`` to that list around each load.
    """
    serialization = torch.serialization
    before = serialization.get_safe_globals()
    others = [entry for entry in before if _name_of(entry) not in ALLOWED]
    ours = [(function, name) for name, function in ALLOWED.items()]
    serialization.clear_safe_globals()
    serialization.add_safe_globals([*others, *ours])
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _name_of(entry: Any) -> str:
    """Return the name by which a pickle refers to an entry of torch's list of safe globals."""
    if isinstance(entry, tuple):
        return str(entry[1])
    return f'{entry.__module__}.{entry.__qualname__}'


@contextmanager
def safe_loading(path: str | Path, whole: bool = True) -> Iterator[None]:
    """Load a file with :func:`load` inside: its errors become one sentence about the file.

    Args:
        path (str | Path): The file; of an address only unsafe pickles are recognized.
        whole (bool): Compare the checksums of all its parts first, which torch does
            not.

    Raises:
        CheckpointError: It is damaged, of another format, or holds objects that
            :func:`load` refuses.
    """
    local = Path(path).expanduser()
    is_local = local.is_file()
    # Before the checksums: a file of neither format is named as such.
    zipped = is_local and is_zipped(local)
    try:
        if zipped and whole:
            check_parts(local, whole)
        yield
    except pickle.UnpicklingError as e:
        # The rest of torch's text advises to switch the check off.
        match = re.search(r'GLOBAL (\S+)', str(e))
        content = 'more than tensors'
        if match:
            content = f"an object of '{match[1]}'"
        raise CheckpointError(
            f"'{path}' was not loaded: it holds {content}, and loading such a pickle "
            'could run code.'
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
    if start.startswith(b'PK'):
        return True
    if start.startswith(b'\x80'):
        return False
    content = 'neither a zip nor a pickle'
    if b'//git-lfs' in start:
        content = 'a Git LFS pointer'
    raise CheckpointError(
        f"'{path}' is not a checkpoint of torch.save: it is {content}."
    )


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    """Return the error for a file that cannot be read as what it seems to be."""
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return CheckpointError(
        f"'{path}' cannot be read and looks truncated or damaged: {reason}."
    )


def open_torch(path: Path) -> Tensors:
    """List the tensors of a file of ``torch.save``: ``pytorch_model*.bin``, ``*.pth``.

    Files in PyTorch's zip format (1.6 and later) are mapped anew for every tensor.
    Older files have to be read as a whole, with a warning.

    Raises:
        CheckpointError: See :func:`safe_loading`; it holds no named tensors. On reading
            a tensor: it is damaged, or the file has changed.
    """
    if not is_zipped(path):
        warnings.warn(
            f'{path} is in the format from before PyTorch 1.6: the whole file is read '
            'into memory.',
            stacklevel=2,
        )
        tensors = _load(path, mmap=False)
        return {name: partial(tensors.__getitem__, name) for name in tensors}
    with safe_loading(path, whole=False):
        sums = check_parts(path)
    names = _load(path, mmap=True)
    return {name: partial(_read, path, name, sums) for name in names}


def check_parts(path: Path, whole: bool = False) -> set[tuple[int, int]]:
    """Compare the checksums of a zip's parts with its directory's, which torch does not.

    Args:
        path (Path): A file of ``torch.save``.
        whole (bool): False leaves out the parts that are tensors.

    Returns:
        set: Size and checksum of each part that is left, to be compared where it is
            read.

    Raises:
        BadZipFile: They differ, or the zip is compressed: a map would give its bytes
            for numbers.
    """
    with zipfile.ZipFile(path) as z:
        entries = z.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise zipfile.BadZipFile(
                'it is a compressed zip; write it again with torch.save'
            )
        if _has_other_byte_order(z):
            whole = True  # torch swaps what it reads, so that it has another checksum
        for entry in entries:
            is_tensor = _STORAGE.search(entry.filename) is not None
            if whole or not is_tensor:
                _read_to_end(z, entry)
    if whole:
        return set()
    return {(entry.file_size, entry.CRC) for entry in entries}


def _has_other_byte_order(archive: zipfile.ZipFile) -> bool:
    """Return whether a file was written on a machine of another byte order."""
    for entry in archive.infolist():
        if entry.filename.endswith('/byteorder'):
            if archive.read(entry) != sys.byteorder.encode():
                return True
    return False


def _read_to_end(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read a part to its end, where zipfile compares the checksum."""
    with archive.open(entry) as part:
        while True:
            if not part.read(_CHUNK):
                return


def _load(path: Path, mmap: bool) -> dict[str, Tensor]:
    """Load a file and return its named tensors; other entries are left out.

    Raises:
        CheckpointError: The file is damaged, not safe to load, or holds no dict.
    """
    with safe_loading(path, whole=not mmap):
        content = load(path, map_location='cpu', mmap=mmap)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"'{path}' holds a {type(content).__name__}, not named tensors."
        )
    tensors = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = value
    return tensors


def _read(path: Path, name: str, sums: set[tuple[int, int]]) -> Tensor:
    """Read one tensor through a map of the file, and compare its checksum.

    Args:
        path (Path): The file.
        name (str): The name of the tensor.
        sums (set): Size and checksum of each part of the file. Empty: all parts were
            compared before.

    Raises:
        CheckpointError: The tensor is gone or damaged.
    """
    tensor = _load(path, mmap=True).get(name)
    if tensor is None:
        raise CheckpointError(f"{path} changed while it was read: '{name}' is gone.")
    has_values = tensor.layout == torch.strided and not tensor.is_meta
    if sums and has_values and _checksum(tensor) not in sums:
        raise CheckpointError(
            f"'{name}' of {path} is damaged or changed. Fix: copy it again."
        )
    return tensor


def _checksum(tensor: Tensor) -> tuple[int, int]:
    """Return the size and the checksum of a tensor's whole storage."""
    storage = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    data = storage.numpy().data
    return len(data), zlib.crc32(data)


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
            texts = file.metadata() or {}
            meta = json.loads(texts.get('lm4ve', '{}'))
            names = file.keys()
            state: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, RecursionError) as e:
        raise _damaged(Path(path), e) from e
    fields: dict[str, Any] = {}
    if isinstance(meta, dict) and meta.get('classes') is not None:
        fields['dataset_meta'] = dict(classes=meta['classes'])
    if isinstance(meta, dict) and meta.get('cfg') is not None:
        # Of the training, under the name that it has in MMEngine's checkpoints.
        fields['cfg'] = meta['cfg']
    fields['lm4ve'] = meta
    return dict(meta=fields, state_dict=state)
