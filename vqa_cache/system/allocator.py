"""Keeping freed memory for the next batch, or giving it back; large pages for large tables."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_MADV_HUGEPAGE = 14  # Linux
LARGE_PAGE = 2 << 20  # bytes
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


def in_large_pages(rows: torch.Tensor) -> torch.Tensor:
    """Ask for pages of 2 MiB for a tensor that nothing was written to yet; the tensor.

    The first write to each page of 4 KiB is a call to the kernel, which takes microseconds on a
    virtual machine: longer than reading the page. Linux gives large ones where they are asked for
    (`transparent_hugepage` "madvise"), or always, or never; elsewhere nothing changes.
    """
    elsewhere = sys.platform != "linux" or rows.device.type != "cpu"
    if elsewhere or rows.nbytes < 2 * LARGE_PAGE:
        return rows
    page = os.sysconf("SC_PAGE_SIZE")
    start = -(-rows.data_ptr() // page) * page
    stop = (rows.data_ptr() + rows.nbytes) // page * page
    advise = ctypes.CDLL(None).madvise
    advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_HUGEPAGE)
    return rows
