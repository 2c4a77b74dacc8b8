"""A worker that loads pictures gives their memory back to the system and asks for it again.

Arrays of some megabytes come and go with every transform. The C library (glibc) returns
such memory at once, and the system clears each page of it when it is touched the next time,
which took longer than the transforms that allocate it. A worker that keeps what it frees
computes the same.
"""

import ctypes

#: Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Larger blocks are given back when they are freed; the most that glibc takes.
LARGEST = 2**25
#: Bytes that are kept.
KEPT = 2**27


def keep_freed_memory() -> bool:
    """Let this process keep up to 128 MiB that it has freed.

    Returns:
        bool: Whether the C library can be told so.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST) and mallopt(_TRIM_THRESHOLD, KEPT))
