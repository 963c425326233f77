"""The commands of docs/cache.md run as they are typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import vqa_cache
from vqa_cache.__main__ import main

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "cache.md").read_text(), re.DOTALL)


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = {}
    for command in "".join(BLOCKS).splitlines():
        program, *arguments = shlex.split(command)
        if program == "vqa-cache":
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, (command, result.output)
            told[command] = result.stdout
        else:
            done = subprocess.run(
                [sys.executable, *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, (command, done.stderr)
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
