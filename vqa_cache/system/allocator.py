"""Keeping freed memory for the next batch, or giving it back."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1  # bytes of free memory that glibc keeps: as much as an int can say


def keep_freed_memory() -> bool:
    """Tell glibc not to give large blocks back to the kernel, which would hand every batch fresh
    pages to fault in (a fifth of a small encoder's time). False where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def give_back_freed_memory() -> bool:
    """Give what is free back to the kernel, once: after work that needed more than what follows.
    False where the C library is another than glibc."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    malloc_trim(0)
    return True
