"""The endings of the pictures that every reader of a folder takes.

They have a file of their own, since a task's table names them, and tables import neither
OpenCV nor torch.
"""

import os

#: In lower case, of the formats that both OpenCV 4.12 and later, which decodes, and
#: Pillow, which finds damage, read. Files with other endings (.avif, .heic, .tga) are
#: left out, and each reader says so.
IMAGE_SUFFIXES = (
    '.jpg',
    '.jpeg',
    '.jpe',
    '.jfif',
    '.png',
    '.bmp',
    '.webp',
    '.gif',
    '.tif',
    '.tiff',
    '.jp2',
    '.ppm',
    '.pgm',
    '.pbm',
    '.pnm',
)


def has_image_suffix(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's ending is one of :data:`IMAGE_SUFFIXES`."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES
