"""The benchmark of several taps in one pass, in its short form."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from conftest import RESNET

from benchmarks import taps
from benchmarks.__main__ import main
from benchmarks.taps import Taps

pytestmark = pytest.mark.usefixtures("libraries")


def test_one_pass_is_compared_in_time_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Taps(f"{RESNET}:grid=2", ("layer1", "layer3"), "image", 24)
    monkeypatch.setattr(taps, "MODELS", {"lite0": small})
    monkeypatch.setattr(taps, "ROWS", 3)
    monkeypatch.setattr(taps.ray_driver, "why_not", lambda: "left out")
    line = ["taps", "--rounds", "1", "--json"]
    done = CliRunner().invoke(main, line, catch_exceptions=False)
    figures = json.loads(done.stdout)
    assert figures["lite0_bytes_equal"] == {"one_pass": True, "killed": True}
    assert figures["bytes_equal"] is True
    assert figures["one_pass_vs_deepest"] == figures["lite0_one_pass_vs_deepest"] > 0
    assert figures["lite0_runs_vs_one_pass"] > 0
    assert figures["ray"] == "left out"
