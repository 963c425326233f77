"""The benchmark of stage 1 in its short form, and the items that it is measured with."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import CliRunner
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.inputs.caches import TEXT
from benchmarks.inputs.photographs import write_photographs
from benchmarks.inputs.questions import HISTOGRAM, make_questions
from benchmarks.measuring.memory import memory_growth
from benchmarks.measuring.turns import take_turns
from benchmarks.precompute import command as benchmark
from benchmarks.precompute.images import KEYS as IMAGE_KEYS
from benchmarks.precompute.sizes import SMALL
from benchmarks.precompute.texts import KEYS as TEXT_KEYS
from precompute.encoders import load_encoder
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")


def figures(monkeypatch: pytest.MonkeyPatch, *keys: str) -> dict[str, Any]:
    """What the short form prints of some keys; all asked for are finite numbers."""
    monkeypatch.setattr(benchmark, "IMPORTS", {})  # each costs a process
    only = itertools.chain.from_iterable(("--only", key) for key in keys)
    line = ["precompute", "--small", "--rounds", "1", "--json", *only]
    found: dict[str, Any] = json.loads(
        CliRunner().invoke(main, line, catch_exceptions=False).stdout
    )
    assert {key for key in benchmark.KEYS if key in found} == set(keys)
    assert all(math.isfinite(found[key]) for key in keys)
    return found


def test_questions_are_distinct_and_as_long_as_the_histogram_says() -> None:
    questions = make_questions(5000)
    encoder = load_encoder(parse_spec(TEXT), "text")
    lengths = sorted(map(encoder.length, encoder.prepare_many(questions)))
    assert Counter(lengths) == HISTOGRAM
    assert (lengths[0], lengths[2500], lengths[-1]) == (5, 9, 26)
    assert len(set(questions)) == 5000
    assert questions == make_questions(5000) != make_questions(5000, seed=1)
    few = sorted(map(encoder.length, encoder.prepare_many(make_questions(50))))
    assert few == lengths[::100]


def test_photographs_are_distinct_crops_of_one_size(tmp_path: Path) -> None:
    files = write_photographs(tmp_path / "a", 6)
    contents = [file.read_bytes() for file in files]
    assert len(set(contents)) == 6
    again = write_photographs(tmp_path / "b", 6)
    assert [file.read_bytes() for file in again] == contents
    for file in files:
        with Image.open(file) as picture:
            assert (picture.size, picture.format) == ((640, 480), "JPEG")


def test_texts_are_measured_against_both_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = TEXT_KEYS
    found = figures(monkeypatch, *keys)
    assert all(found[key] > 0 for key in keys)
    assert found["text_lengths"][:2] == [5, 9]
    best = found["sentence_transformers_fp32_best"]
    assert best in [f"fp32, batch size {size}" for size in SMALL.batch_sizes]
    told = found["text_per_second"] / found["padded_loop_per_second"]
    assert found["text_vs_padded_loop"] == pytest.approx(told, rel=0.02)


def test_images_are_measured_against_a_loop_and_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = IMAGE_KEYS
    found = figures(monkeypatch, *keys)
    worse = min(found["resnet50_vs_floor"], found["vitb16_vs_floor"])
    assert found["pipeline_vs_floor"] == worse > 0
    floor = found["resnet50_forward_seconds"] + found["resnet50_decoding_seconds"]
    images = SMALL.images["resnet50"][1]
    told = floor * found["resnet50_per_second"] / images
    assert found["resnet50_vs_floor"] == pytest.approx(told, rel=0.05)


def test_one_comparison_measures_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(monkeypatch, "vitb16_vs_plain_loop")
    assert "resnet50_per_second" not in found
    assert "vitb16_forward_seconds" not in found


def test_bf16_rows_are_near_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(monkeypatch, "bf16_worst_cosine")
    assert 0.99 < found["bf16_worst_cosine"] <= 1
    assert found["bf16_cosine_n"].keys() == {"resnet50", "vitb16", "text"}
    assert all(found["bf16_cosine_n"].values())


def test_a_kill_costs_a_part_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(monkeypatch, "resume_overhead")
    assert found["resume_kills"] == SMALL.kills
    assert -SMALL.shards < found["resume_overhead"] < 10 * SMALL.shards


def test_memory_is_watched_from_the_first_commit_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(monkeypatch, "memory_growth_mib")
    assert -64 < found["memory_growth_mib"] < 64
    assert found["memory_written_bytes"] > SMALL.written_rows * 512


def test_memory_of_a_command_that_fails_is_no_figure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also: it is not waited for, though it says more than a pipe holds."""
    root = "nope" * 20_000
    with pytest.raises(ClickException, match=r"^stage 1 ended with exit code 1; it has said why$"):
        memory_growth(
            ["--dataset", "jsonl", "--root", root, "--image", "timm:test_resnet:random=0"], tmp_path
        )
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert root in said


def test_what_fails_is_named_and_figures_until_then_are_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "SMALL", replace(SMALL, written="timm:nope:random=0"))
    keys = ("bf16_worst_cosine", "memory_growth_mib")
    only = itertools.chain.from_iterable(("--only", key) for key in keys)
    line = ["precompute", "--small", "--rounds", "1", "--json", *only]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["bf16_worst_cosine"] > 0
    assert found["environment"]["libraries"]
    assert "memory_growth_mib" not in found
    *said, last = done.stderr.splitlines()
    assert last == f"error: {found['incomplete']}"
    assert "memory while 60 rows of timm:nope:random=0 are written: stage 1 ended with" in last
    assert "timm has no model 'nope'" in capfd.readouterr().err
    assert "Traceback" not in done.stderr
    assert any("rows in bf16 against rows in fp32" in line for line in said)


def test_what_is_done_before_a_turn_stays_outside_the_clock() -> None:
    order: list[str] = []

    def work() -> float:
        order.append("work")
        return 1.0

    take_turns({"a": work}, rounds=1, before={"a": lambda: order.append("before")})
    assert order == ["before", "work"] * 2
