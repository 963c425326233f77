"""Nothing of an encoder that a library makes up when its file is missing is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import save_bert

from precompute.encoders import load_encoder
from precompute.errors import EncoderError
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

TEXTS = ["What color is the dog?", "how many birds sit there?"]


def rows(text: str) -> torch.Tensor:
    encoder = load_encoder(parse_spec(text), "text")
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in TEXTS])


@pytest.fixture(scope="module")
def sentences(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of sentence-transformers, a plain BERT's folder at the same time."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    bert = save_bert(tmp_path_factory.mktemp("bert") / "bert")
    folder = tmp_path_factory.mktemp("sentences") / "model"
    modules = [Transformer(str(bert), max_seq_length=20), Pooling(32, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.mark.parametrize("family", ["dir:", "st:dir:"])
@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (("tokenizer.json", "tokenizer_config.json"), "tokenizer_config.json and tokenizer.json"),
        (("tokenizer.json",), "tokenizer.json"),
        (("tokenizer_config.json",), "tokenizer_config.json"),  # else a cased model is lower-cased
    ],
)
def test_a_tokenizer_that_would_be_made_up_is_refused(
    tmp_path: Path, sentences: Path, family: str, lost: tuple[str, ...], told: str
) -> None:
    """Its vocabulary would be empty: every word unknown, and unlike questions alike."""
    folder = shutil.copytree(sentences, tmp_path / "model")
    for file in lost:
        (folder / file).unlink()
    with pytest.raises(EncoderError, match=f"its tokenizer lacks {told} in {folder}, ") as caught:
        rows(f"{family}{folder}")
    assert "\n" not in str(caught.value)
    named = f"{family}{folder}:tokenizer=dir:{sentences}"
    if family == "dir:":  # the spec may name a whole one
        assert torch.equal(rows(named), rows(f"dir:{sentences}"))


def test_a_named_tokenizer_is_checked_as_well(tmp_path: Path, sentences: Path) -> None:
    folder = shutil.copytree(sentences, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=f"its tokenizer lacks tokenizer.json in {folder}, "):
        rows(f"dir:{sentences}:tokenizer=dir:{folder}")


def test_the_parts_of_a_slow_tokenizer_are_enough(tmp_path: Path, sentences: Path) -> None:
    folder = shutil.copytree(sentences, tmp_path / "model")
    whole = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(whole, key=whole.__getitem__)) + "\n")
    (folder / "tokenizer.json").unlink()
    assert torch.equal(rows(f"dir:{folder}"), rows(f"dir:{sentences}"))


def test_settings_of_sentences_that_would_be_made_up_are_refused(
    tmp_path: Path, sentences: Path
) -> None:
    folder = shutil.copytree(sentences, tmp_path / "model")
    (folder / "sentence_bert_config.json").unlink()
    with pytest.raises(EncoderError, match=f"no sentence_bert_config.json in {folder}; Sentence"):
        rows(f"st:dir:{folder}")


@pytest.mark.parametrize("lost", ["1_Pooling/config.json", "config.json", "model.safetensors"])
def test_other_parts_are_refused_by_the_library(tmp_path: Path, sentences: Path, lost: str) -> None:
    folder = shutil.copytree(sentences, tmp_path / "model")
    (folder / lost).unlink()
    with pytest.raises(EncoderError, match=f"encoder st:dir:{folder}"):
        rows(f"st:dir:{folder}")
