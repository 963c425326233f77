"""What a training leaves of its epochs: a line on the screen, a picture in the run's folder."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_train_small_cache import write_experiment

from train.__main__ import command
from train.runs.curves import keep_picture, picture, read_curves, told

RUN = {"dataset": "tiny", "metrics": {"val": {"accuracy": 0.5}}, "best": {"split": "val"}}


def trained(folder: Path, cache: Path) -> Any:
    path = write_experiment(folder)
    options = ["baselines=off", "--cache", str(cache), "--runs", str(folder / "runs")]
    return CliRunner().invoke(command, [str(path), *options], catch_exceptions=False)


def test_the_curve_of_epochs_stays_on_the_screen_and_in_the_folder(
    tmp_path: Path, cache: Path
) -> None:
    done = trained(tmp_path, cache)
    run = Path(done.stdout.splitlines()[-1].removeprefix("run: "))
    curve = read_curves(run / "metrics.jsonl")["val accuracy"]
    [line] = [one for one in done.stdout.splitlines() if "accuracy by epoch: " in one]
    assert line.endswith(f"best {max(value for _, value in curve):.4g} after epoch "
                         f"{max(curve, key=lambda point: (point[1], -point[0]))[0]:g}")  # fmt: skip
    with Image.open(run / "curve.png") as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 2 * drawn.height
    first = (run / "curve.png").stat().st_mtime_ns
    assert line in trained(tmp_path, cache).stdout.splitlines()
    assert (run / "curve.png").stat().st_mtime_ns == first


def test_a_curve_of_one_evaluation_is_no_line() -> None:
    assert told({"val accuracy": [(1, 0.5)]}, "val") == []
    assert told({}, "val") == []
    [line] = told({"val accuracy": [(1, 0.25), (2, 0.75), (3, 0.75)]}, "val")
    assert line == "val accuracy by epoch: ▁██  0.25 to 0.75, best 0.75 after epoch 2"


def pixels(content: bytes, colour: tuple[int, int, int]) -> int:
    """How many pixels of a picture are near a colour."""
    drawn = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)
    return int((abs(drawn - colour).max(axis=2) < 40).sum())


def test_a_picture_shows_each_curve_and_what_there_is_to_beat() -> None:
    curves = {"train loss": [(1, 2.0), (2, 1.0)], "val accuracy": [(1, 0.1), (2, 0.9)]}
    blue, orange, grey = (0x3B, 0x82, 0xC4), (0xE0, 0x70, 0x3A), (0x8A, 0x8D, 0x93)
    plain = picture("a", curves, {})
    assert pixels(plain, blue) > 1000
    assert pixels(plain, orange) == 0
    more = {**curves, "val cross_entropy": [(1, 2.0), (2, 1.5)]}
    assert pixels(picture("a", more, {}), orange) > 200
    assert pixels(picture("a", curves, {"majority": 0.4}), grey) > pixels(plain, grey) + 100
    assert picture("a", {"train loss": []}, {})  # nothing to draw


def test_the_picture_says_below_question_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def noted(title: str, *_: Any) -> bytes:
        titles.append(title)
        return b""

    monkeypatch.setattr("train.runs.curves.picture", noted)
    for reached in (0.7, 0.6):
        result = RUN | {"baselines": {"question_only": {"val": {"accuracy": reached}}}}
        result |= {"metrics": {"val": {"accuracy": 0.65}}}
        keep_picture(tmp_path, result, {})
        (tmp_path / "curve.png").unlink()
    assert [title.endswith(", below question only") for title in titles] == [True, False]


def test_a_picture_that_cannot_be_written_leaves_the_run_finished(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.runs.curves.write_file", full)
    done = trained(tmp_path, cache)
    assert done.exit_code == 0
    assert "note: no picture of the curves: No space left on device" in done.stdout
    run = Path(done.stdout.splitlines()[-1].removeprefix("run: "))
    assert json.loads((run / "result.json").read_text())["metrics"]


def test_curves_are_told_without_torch_and_matplotlib() -> None:
    """A finished run that is printed again, and a training, would wait for either."""
    code = "import sys, train.runs.curves as c; c.picture('a', {'x loss': [(1, 2.0)]}, {});"
    code += "print([m for m in ('torch', 'matplotlib', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
