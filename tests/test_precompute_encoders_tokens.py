"""Tap `tokens`: every token of the last layer, of texts as ragged rows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import BERT, RESNET, TOKENIZER, VIT, write_dataset

import vqa_cache
from precompute.__main__ import main
from precompute.encode import Worker
from precompute.encoders import load_encoder
from precompute.encoders.transformers_texts import TransformersTexts
from precompute.errors import EncoderError, ItemError
from precompute.numerics import Numerics
from vqa_cache.records.table import BatchPlan
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

TEXTS = ["is it red?", "how many small yellow birds sit on the fence?", ""]


@pytest.mark.parametrize("spec", [BERT, TOKENIZER, f"st:{TOKENIZER}"])
def test_joined_tokens_average_to_the_mean(spec: str) -> None:
    encoder = load_encoder(parse_spec(f"{spec}:tap=tokens"), "text")
    items = [encoder.prepare(text) for text in TEXTS]
    lengths = [encoder.length(item) for item in items]
    assert len(set(lengths)) == 3
    mean = load_encoder(parse_spec(spec), "text")
    with torch.inference_mode():
        tokens = encoder.encode(items)
        expected = mean.encode([mean.prepare(text) for text in TEXTS])
    assert encoder.ragged
    assert tokens.shape == (sum(lengths), *encoder.row_shape)
    means = torch.stack([row.mean(0) for row in tokens.split(lengths)])
    if spec.startswith("st:"):  # which normalises
        means = torch.nn.functional.normalize(means)
    assert (means - expected).abs().max() < 1e-5


def test_tokens_of_an_image_are_as_many_for_each() -> None:
    tokens = load_encoder(parse_spec(f"{VIT}:tap=tokens"), "image")
    assert (tokens.ragged, tokens.row_shape) == (False, (17, 32))
    pixels = torch.rand(2, 3, 32, 32).unbind()
    with torch.inference_mode():
        rows = tokens.encode(pixels)
        assert torch.equal(rows[:, 0], load_encoder(parse_spec(VIT), "image").encode(pixels))
    with pytest.raises(EncoderError, match="which tokens is not"):
        load_encoder(parse_spec(f"{VIT}:tap=tokens:grid=2"), "image")


def run(*arguments: Any) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_ragged_table_through_stage_1(tmp_path: Path) -> None:
    """Also the second run, which checks the canaries, adds to it."""
    root = write_dataset(tmp_path / "data")
    spec = f"{BERT}:tap=tokens"
    how = ("--dataset", "jsonl", "--root", root, "--text", spec, "--cache", tmp_path / "cache",
           "--rows-per-shard", 8, "--batch-size", 3, "--precision", "fp32")  # fmt: skip
    run(*how, "--splits", "train", "--limit", 3)
    run(*how)
    (table,) = vqa_cache.open(tmp_path / "cache").tables.values()
    assert table.record.ragged
    assert 0.9999 < table.record.canaries.cosine_worst <= 1.0
    encoder = load_encoder(parse_spec(spec), "text")
    for text in [f"is number {number} big?" for number in (0, 4, 8)]:
        with torch.inference_mode():
            expected = encoder.encode([encoder.prepare(text)])
        assert (torch.as_tensor(table[text]).float() - expected).abs().max() < 2e-3
    assert "0 encoded" in run(*how)


def test_the_estimate_counts_tokens(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    how = ("--dataset", "jsonl", "--root", root, "--cache", tmp_path / "cache", "--dry-run",
           "--json")  # fmt: skip
    rows = json.loads(run(*how, "--text", BERT))["tables"][0]
    tokens = json.loads(run(*how, "--text", f"{BERT}:tap=tokens"))["tables"][0]
    assert 5 < tokens["bytes"] / rows["bytes"] < 15
    images = json.loads(run(*how, "--image", RESNET))["tables"][0]
    assert images["bytes"] == images["missing"] * 96 * 2


@pytest.mark.parametrize("begun", [False, True])
def test_the_estimate_computes_as_a_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """bf16 is several times faster where it is chosen, and so is the run."""
    how = ("--dataset", "jsonl", "--root", write_dataset(tmp_path / "data"), "--cache",
           tmp_path / "cache", "--text", BERT)  # fmt: skip
    if begun:
        run(*how, "--precision", "bf16", "--limit", 2)
    used = []
    launch = Numerics.launch_together

    def noted(numerics: Numerics, *more: Any) -> Any:
        used.append(numerics.precision)
        return launch(numerics, *more)

    monkeypatch.setattr(Numerics, "launch_together", noted)
    monkeypatch.setattr("precompute.independence.check_independence", lambda encoder: None)
    run(*how, "--dry-run", *(() if begun else ("--precision", "bf16")))
    assert set(used) == {"bf16"}


def test_texts_fill_a_budget_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many texts as fit when all are padded to the longest; one that is too long goes alone."""
    batches: list[list[int]] = []
    launch = Worker._launch

    def recorded(worker: Worker, batch: Any, writing: Any) -> Any:
        batches.append([one.length for one in batch])
        return launch(worker, batch, writing)

    monkeypatch.setattr(Worker, "_launch", recorded)
    monkeypatch.setattr(TransformersTexts, "batch_size", 60)
    questions = [f"is it {'very ' * n}big?" for n in range(16)] + [f"is it {'very ' * 80}big?"]
    root = write_dataset(tmp_path / "data", images=1, train=1, test=0)
    image = f"images/{next(root.rglob('*.*g')).name}"
    lines = [json.dumps({"image": image, "question": q, "answer": "cat"}) for q in questions]
    (root / "train.jsonl").write_text("\n".join(lines) + "\n")
    how = ("--dataset", "jsonl", "--root", root, "--cache", tmp_path / "cache", "--text", BERT)
    run(*how, "--precision", "fp32")
    (table,) = vqa_cache.open(tmp_path / "cache").tables.values()
    assert table.record.batch_plan == BatchPlan("by-tokens", 60)
    tokenised = map(load_encoder(parse_spec(BERT), "text").prepare, questions)
    assert [length for batch in batches for length in batch] == sorted(map(len, tokenised))
    assert len(batches[-1]) == 1
    assert batches[-1][0] > 60
    assert all(len(batch) * batch[-1] <= 60 for batch in batches[:-1])
    for batch, after in itertools.pairwise(batches):
        assert (len(batch) + 1) * after[0] > 60, "no batch is closed before it is full"


@pytest.mark.parametrize("spec", [BERT, f"st:{TOKENIZER}"])
def test_texts_tokenised_together_are_what_each_is_alone(spec: str) -> None:
    encoder = load_encoder(parse_spec(spec), "text")
    together = encoder.prepare_many([*TEXTS, "\ud800", "fine"])
    assert isinstance(together.pop(-2), ItemError)
    for text, one in zip([*TEXTS, "fine"], together, strict=True):
        assert_same(one, encoder.prepare(text))
    for text, one in zip(TEXTS, encoder.prepare_many(TEXTS), strict=True):
        assert_same(one, encoder.prepare(text))


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
