"""Finds damaged files of volumes, in little memory.

A volume has up to a gigabyte, and several are checked at once. So a file is read in
pieces: that its header is whole, that as many voxels follow as it promises, that all of
them are numbers, and, of a compressed file, that its checksum fits.
"""

import math
from typing import Any

import nibabel
import numpy as np
from nibabel.openers import ImageOpener

from lm4ve.files import is_file, storage_error_behind

#: Bytes that are read at a time, a multiple of the size of any number.
_CHUNK = 1 << 20


def find_defect(path: str, decode: bool = False) -> str | None:
    """Return what is wrong with a NIfTI file.

    Args:
        path (str): The file, ``.nii`` or ``.nii.gz``.
        decode (bool): Read all of it; without, it only has to exist.

    Returns:
        str or None: The defect, worded to follow the file's name, or None.

    Raises:
        Exception: Storage does not give it; see
            :func:`lm4ve.files.storage_error_behind`.
    """
    # Reading a pipe or a device may never end.
    if not is_file(path):
        return 'does not exist, or is no file'
    if not decode:
        return None
    try:
        return _read_through(path)
    except Exception as error:
        # nibabel, zlib and gzip raise a dozen kinds.
        if storage_error_behind(error) is not None:
            raise
        return f'cannot be read as NIfTI ({error})'


def _read_through(path: str) -> str | None:
    """Read a file to its end, and return what is wrong with its voxels, or None."""
    image: Any = nibabel.load(path)
    # The place and the type of the voxels in the file, of which none is read yet.
    stored = image.dataobj
    dtype = stored.dtype
    promised = math.prod(stored.shape) * dtype.itemsize
    found = 0
    with ImageOpener(path) as file:
        file.read(stored.offset)
        chunk = file.read(_CHUNK)
        while chunk:
            voxels = chunk[: max(0, promised - found)]
            if not _are_numbers(voxels, dtype):
                return 'has voxels that are no numbers (NaN or infinite)'
            found += len(chunk)
            # At the end of a compressed file its checksum is compared.
            chunk = file.read(_CHUNK)
    if found < promised:
        return f'is truncated: its last {promised - found} bytes are missing'
    return None


def _are_numbers(voxels: bytes, dtype: np.dtype) -> bool:
    """Return whether all voxels are finite numbers; those of whole numbers always are."""
    if dtype.kind != 'f':
        return True
    count = len(voxels) // dtype.itemsize
    return bool(np.isfinite(np.frombuffer(voxels, dtype, count)).all())
