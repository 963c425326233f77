"""The README's examples of one's own data and one's own head run as they are typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    found = [block for block in blocks if containing in block]
    assert len(found) == 1, f"expected one {language} block with {containing!r}"
    return found[0]


def _typed(folder: Path, command: str, *more: str) -> dict[str, Any] | None:
    """Run a line of the README in a folder; the result of the run that it names, if any."""
    assert command.startswith("python -m ")
    done = subprocess.run(
        [sys.executable, *command.split()[1:], *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1:]
    if not last or not last[0].startswith("run: "):
        return None
    result: dict[str, Any] = json.loads(
        (folder / last[0].removeprefix("run: ") / "result.json").read_text()
    )
    return result


def test_own_data_and_own_head(tmp_path: Path) -> None:
    lines = _block("json", '"question"')
    assert len(lines.strip().splitlines()) == 4
    folder = tmp_path / "mydata"
    (folder / "images").mkdir(parents=True)
    (folder / "train.jsonl").write_text(lines)
    draw = np.random.default_rng(0)
    for line in lines.strip().splitlines():
        pixels = draw.integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / json.loads(line)["image"])

    commands = _block("sh", "--dataset jsonl").strip().splitlines()
    result = [_typed(tmp_path, command) for command in commands][-1]
    assert result is not None
    assert result["metrics"]["val"]["n"] >= 1

    (tmp_path / "my_head.py").write_text(_block("python", "nn.Module"))
    features = [word for word in commands[-1].split() if word.startswith("features.")]
    [command] = _block("sh", "my_head:").strip().splitlines()
    result = _typed(tmp_path, command, *features, "train.epochs=1", "baselines=off")
    assert result is not None
    config = (tmp_path / "runs" / result["run_id"] / "config.toml").read_text()
    assert "experts = 8" in config
