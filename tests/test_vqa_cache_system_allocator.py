"""Large pages for large tables."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest
import torch

from vqa_cache.system.allocator import LARGE_PAGE, in_large_pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ADVISED = SETTING.exists() and "[madvise]" in SETTING.read_text()


def bytes_in_large_pages(rows: torch.Tensor) -> int:
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if edges := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            first, last = (int(edge, 16) for edge in edges.groups())
            inside = first < rows.data_ptr() + rows.nbytes and last > rows.data_ptr()
        elif inside and line.startswith("AnonHugePages:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(not ADVISED, reason="the kernel gives no large pages")
def test_a_large_tensor_lies_in_large_pages() -> None:
    fresh = mmap.mmap(
        -1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )  # an allocator may give memory that has its pages already
    rows = in_large_pages(torch.frombuffer(fresh, dtype=torch.uint8)).fill_(7)
    assert bytes_in_large_pages(rows) >= rows.nbytes - 2 * LARGE_PAGE
    assert int(rows[-1]) == 7


def test_small_tensors_and_those_elsewhere_stay_as_they_are() -> None:
    small = torch.ones(3)
    assert in_large_pages(small) is small
    elsewhere = torch.empty(64 << 20, device="meta")
    assert in_large_pages(elsewhere) is elsewhere
