"""The README's example of one's own data runs as it is typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    found = [block for block in blocks if containing in block]
    assert len(found) == 1, f"expected one {language} block with {containing!r}"
    return found[0]


def test_jsonl_example(tmp_path: Path) -> None:
    lines = _block("json", '"question"')
    assert len(lines.strip().splitlines()) == 4
    folder = tmp_path / "mydata"
    (folder / "images").mkdir(parents=True)
    (folder / "train.jsonl").write_text(lines)
    draw = np.random.default_rng(0)
    for line in lines.strip().splitlines():
        pixels = draw.integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / json.loads(line)["image"])

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in _block("sh", "--dataset jsonl").replace("\\\n", " ").strip().splitlines():
        assert command.startswith("python -m ")
        done = subprocess.run(
            [sys.executable, *command.split()[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    run = tmp_path / done.stdout.strip().splitlines()[-1].removeprefix("run: ")
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["val"]["n"] >= 1
