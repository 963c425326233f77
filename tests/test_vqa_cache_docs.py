"""The commands of docs/cache.md run as they are typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from documents import blocks, typed

import vqa_cache


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = {}
    for block in blocks("sh", "cache.md"):
        told |= {line: typed(line).stdout for line in block.lines}
    assert len(told) > 10
    assert "tap: A pooled, B layer2" in told["vqa-cache explain pooled layer2"]
    [withdrawal] = [text for command, text in told.items() if "withdraw" in command]
    assert "1 keys withdrawn, 1 of them had rows" in withdrawal
    cache = vqa_cache.open("cache")
    pooled = cache.tables["pooled"]
    assert "imported:my-encoder" in {
        str(row["spec"]).partition(":tap")[0] for row in cache.summary()
    }
    back = cache.find_table("imported:my-encoder", "image")
    np.testing.assert_array_equal(back.keys, pooled.keys)
    np.testing.assert_array_equal(back.tensor(), pooled.tensor())
    copied = vqa_cache.open("copy-zarr").tables["pooled"]
    assert (copied.id, copied.record.container) == (pooled.id, "zarr")
