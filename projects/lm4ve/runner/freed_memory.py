"""A process that works on the CPU gives memory back to the system and asks for it again.

Arrays and activations of some megabytes come and go with every transform and every layer.
The C library (glibc) returns such memory at once, and the system clears each page of it when
it is touched the next time, which takes longer than many of the operations between. A
process that keeps what it frees computes the same.
"""

import ctypes

#: Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: Larger blocks are given back when they are freed; the most that glibc takes.
LARGEST = 2**25
#: Bytes that are kept.
KEPT = 2**27
#: glibc's default; a worker is forked from a process that may have set it to 0.
BLOCKS = 2**16


def keep_freed_memory(everything: bool = False) -> bool:
    """Let this process keep memory that it has freed.

    Args:
        everything (bool): Keep all of it, for a training on the CPU, which needs as much in
            the next step. Default: up to 128 MiB, of blocks up to 32 MiB, for workers that
            load data, of which there are many.

    Returns:
        bool: Whether the C library can be told so.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    if everything:
        return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
    options = ((_MMAP_MAX, BLOCKS), (_MMAP_THRESHOLD, LARGEST), (_TRIM_THRESHOLD, KEPT))
    return all(mallopt(*option) for option in options)
