"""`python -m precompute`: exit codes, and one clear line for every user's error."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import BERT, VIT, write_dataset

import vqa_cache
from benchmarks.measuring.warm import ROOT, Warm
from precompute.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], r"name a --dataset, or an experiment with --for"),
        (["--dataset", "jsonl"], r"name at least one of --image, --text, --answer-text"),
        (["--dataset", "jsonl", "--image", VIT, "features.image=x"], r"needs --for EXP"),
        (["--nothing"], r"--nothing"),
        (["--limit", "0"], r"--limit"),
        (["--workers", "0"], r"--workers"),
        (["--batch-size", "x"], r"--batch-size"),
        (["--format", "csv"], r"--format"),
        (["--precision", "fp8"], r"--precision"),
        (["--on-error", "ignore"], r"--on-error"),
    ],
)
def test_wrong_usage(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert re.search(told, result.stderr)


def test_help_names_every_option() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for option in (
        "--for", "--dataset", "--root", "--image", "--text", "--answer-text", "--splits",
        "--format", "--dtype", "--precision", "--batch-size", "--workers", "--limit", "--engine",
        "--on-error", "--retry-failed", "--repair", "--rehash", "--dry-run", "--json",
    ):  # fmt: skip
        assert option in result.stdout


def where(dataset: Path, cache: Path) -> tuple[object, ...]:
    return ("--name", "jsonl", "--dataset", "jsonl", "--root", dataset, "--cache", cache)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--image", "foo:bar"], r"unknown family 'foo'; known: timm, hf"),
        (["--image", "timm:resnet999"], r"timm has no model 'resnet999'"),
        (["--image", "dir:/no/such"], r"no config\.json in /no/such"),
        (["--image", VIT, "--root", "/no/such"], r"no folder /no/such"),
        (["--image", VIT, "--root", "/dev"], r"jsonl: no split .*/dev.*python -m data tree jsonl"),
        (
            ["--text", "hf:bert:random=0:tokenizer=words"],
            r"encoder hf:bert:random=0:tokenizer=words: tokenizer: .*unknown family 'words'",
        ),
        (["--image", VIT, "--splits", "train,vall"], r"no split 'vall'.*found: train, test"),
        (
            ["--for", "cosine"],
            r"unknown experiment 'cosine'; did you mean cosine_answers\?; known: ",
        ),
        (["--for", "/no/such.toml"], r"experiment file /no/such\.toml: not found"),
        (["--image", "hf:some/model"], r"hf:some/model.*dir:FOLDER.*random=0"),
        (["--image", VIT, "--cache", "/dev/null/x"], r"/dev/null/x"),
    ],
)
def test_a_users_error_is_one_line(
    warm: Warm, dataset: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = warm(*where(dataset, tmp_path / "cache"), *arguments)
    assert re.search(told, done.error_line())
    assert done.stdout == ""


def test_a_mistake_in_the_last_encoder_is_told_before_the_first_encodes(
    warm: Warm, dataset: Path, tmp_path: Path
) -> None:
    done = warm(*where(dataset, tmp_path / "cache"), "--image", VIT, "--text", f"{BERT}:tap=layer1")
    assert "no block named 'layer1'" in done.error_line()
    assert not list(tmp_path.glob("cache/tables/*/*/*/*/records/*.json"))


def test_an_encoder_that_cannot_be_is_told_before_images_are_read(
    warm: Warm, dataset: Path, tmp_path: Path
) -> None:
    done = warm(*where(dataset, tmp_path / "cache"), "--image", VIT, "--text", "dir:/no/such")
    assert "no config.json in /no/such" in done.error_line()
    assert not (tmp_path / "cache").exists()


def test_an_error_of_h5py_is_one_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("Unable to synchronously open file\n(more)")

    monkeypatch.setattr("precompute.__main__.precompute", fails)
    typed = map(str, where(dataset, tmp_path / "cache"))
    result = CliRunner().invoke(main, [*typed, "--text", BERT])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: Unable to synchronously open file; committed shards are kept\n"
    )


def test_unknown_keys_of_an_experiment(warm: Warm, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[features]\nimages = "timm:resnet18"\n')
    told = warm("--for", path, "--cache", tmp_path / "cache").error_line()
    assert "unknown key features.images; known: dataset, image, text, answer_text" in told
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_no_cache(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    told = warm(*where(dataset, tmp_path), "--image", VIT).error_line()
    assert "exists and is no cache; expected a new or empty folder" in told
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def newer(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"version":1}', b'"version":6}'))
    assert path.read_bytes() != content


@pytest.mark.parametrize(
    "pattern",
    ["CACHE.json", "tables/*/*/*/*/table.json", "examples/*/train/*.json"],
)
def test_a_newer_cache_is_left_alone(
    warm: Warm, dataset: Path, tmp_path: Path, pattern: str
) -> None:
    cache = tmp_path / "cache"
    how = (*where(dataset, cache), "--image", VIT, "--precision", "fp32")
    assert warm(*how, "--limit", 2).status == 0
    newer(next(cache.glob(pattern)))
    before = {path: path.read_bytes() for path in cache.glob("tables/**/*") if path.is_file()}
    told = warm(*how).error_line()
    assert "format version 6, this program reads up to 2" in told
    assert before == {p: p.read_bytes() for p in cache.glob("tables/**/*") if p.is_file()}


def test_an_unfinished_cache_is_finished(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    how = (*where(dataset, cache), "--image", VIT, "--precision", "fp32")
    assert warm(*how).status == 0
    [table] = vqa_cache.open(cache).tables.values()
    for folder in ("records", "shards"):
        for path in (table.folder / folder).iterdir():
            path.unlink()
    (table.folder / "seal.json").unlink()
    assert len(vqa_cache.open(cache).tables[table.name]) == 0
    done = warm(*how)
    assert "10 encoded, 0 of 10 were there" in done.stderr


def test_a_damaged_table_says_what_to_do(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    how = (*where(dataset, cache), "--image", VIT, "--precision", "fp32")
    assert warm(*how).status == 0
    [path] = cache.glob("tables/*/*/*/*/table.json")
    path.write_bytes(path.read_bytes()[:100])
    (path.parent / "seal.json").unlink()  # which has the record too
    told = warm(*how).error_line()
    assert str(path) in told
    assert re.search(r"delete|remove|restore|another --cache|new cache|withdraw", told)


def garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 999)


def malformed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE images (other TEXT)")
    connection.commit()
    connection.close()


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [garbage, malformed, foreign, deleted])
def test_the_memo_is_never_needed(
    warm: Warm, dataset: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = tmp_path / "cache"
    how = (*where(dataset, cache), "--image", VIT, "--precision", "fp32", "--limit", 3)
    assert warm(*how).status == 0
    damage(cache / "memo.sqlite")
    done = warm(*how)
    assert done.status == 0, done.stderr
    assert "0 encoded, 3 of 3 were there" in done.stderr


def test_odd_texts_are_data(warm: Warm, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", images=1, train=0, test=0)
    questions = [
        "",
        " ",
        "größe?",
        "cafe\\u0301?",
        "line\\nbreak",
        "\\u0000",
        "x" * 20_000,
        "🐦" * 99,
    ]
    lines = [
        f'{{"image": "images/0.png", "question": "{text}", "answers": ["", "{text}", "the"]}}'
        for text in questions
    ]
    (data / "train.jsonl").write_text("\n".join(lines))
    cache = tmp_path / "cache"
    done = warm(*where(data, cache), "--text", BERT, "--answer-text", BERT, "--precision", "fp32")
    assert done.status == 0, done.stderr
    assert "9 empty answers" in done.stderr
    table = vqa_cache.open(cache).find_table(BERT, "text")
    assert table[""].isfinite().all()
    assert table["caf\u00e9?"].isfinite().all()


def test_an_unlabelled_split(warm: Warm, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", images=2, train=2, test=0)
    (data / "test.jsonl").write_text('{"image": "images/0.png", "question": "a?"}\n')
    cache = tmp_path / "cache"
    done = warm(*where(data, cache), "--text", BERT, "--precision", "fp32")
    assert "jsonl/test: 1 examples, 1 images, 1 distinct questions, unlabelled" in done.stderr
    assert not vqa_cache.open(cache).split("jsonl/test").annotated


def test_the_module_runs(dataset: Path, tmp_path: Path) -> None:
    """Once as a user runs it, with nothing imported beforehand."""
    arguments = [*map(str, where(dataset, tmp_path / "cache")), "--image", "timm:no_such:random=0"]
    done = subprocess.run(
        [sys.executable, "-m", "precompute", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: encoder timm:no_such:random=0")
    assert "Traceback" not in done.stderr
