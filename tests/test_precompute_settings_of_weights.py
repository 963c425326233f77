"""`weights=FILE` goes with the settings that the weights were trained with, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_images
from PIL import Image

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import EncoderError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}
HALF: dict[str, Any] = {"hf_hub": "some/where", "mean": (0.5,) * 3, "std": (0.5,) * 3}
SQUASH = {"interpolation": "bicubic", "resize_mode": "squash"}
TAGS: dict[str, dict[str, dict[str, Any]]] = {
    "one-way": {"a": HALF | SQUASH, "b": HALF | SQUASH | {"hf_hub": "else/where"}},
    "two-ways": {"plain": HALF, "quick": HALF | {"quick_gelu": True}, "squash": HALF | SQUASH},
}


@pytest.fixture(scope="module", autouse=True)
def models(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models of open_clip whose tags agree, or differ."""
    import open_clip
    from open_clip import pretrained

    folder = tmp_path_factory.mktemp("models")
    for name in TAGS:
        (folder / f"{name}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, tags in TAGS.items():
            patch.setitem(pretrained._PRETRAINED, name, tags)
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    return [str(folder / name) for name in write_images(folder, 2)]


def encode(encoder: Encoder, items: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in items])


def library_rows(name: str, file: Path, pictures: list[str], **settings: Any) -> torch.Tensor:
    """What open_clip gives with these settings."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    quick = settings.pop("quick_gelu", False)
    model: Any = open_clip.create_model(name, quick_gelu=quick, force_custom_text=True).eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    transform = image_transform_v2(PreprocessCfg(size=32, **settings), is_train=False)
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in pictures])
        rows: torch.Tensor = model.encode_image(pixels)
    return rows


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip

    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        torch.save(open_clip.create_model("one-way", force_custom_text=True).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("one-way", SQUASH),  # all of its tags agree
        ("one-way/b", SQUASH),
        ("two-ways/plain", {}),
        ("two-ways/quick", {"quick_gelu": True}),
        ("two-ways/squash", SQUASH),
    ],
)
def test_a_files_settings_are_those_of_its_tag(
    file: Path, pictures: list[str], model: str, settings: dict[str, Any]
) -> None:
    rows = encode(load_encoder(parse_spec(f"open_clip:{model}:weights={file}"), "image"), pictures)
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    expected = library_rows(model.partition("/")[0], file, pictures, **half | settings)
    assert (rows - expected).abs().max() < 1e-5
    assert (rows - library_rows("one-way", file, pictures)).abs().max() > 1e-3  # CLIP's own


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_tag_is_asked_for_where_they_differ(file: Path, modality: Modality) -> None:
    with pytest.raises(EncoderError, match=r"differ by tag \(quick_gelu\); name the tag") as caught:
        load_encoder(parse_spec(f"open_clip:two-ways:weights={file}"), modality)
    assert "tags: plain, quick, squash" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_timms_tags_are_asked_for_where_they_differ(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "x.pth")
    with pytest.raises(
        EncoderError, match=r"differs by tag \(.*crop_pct.*\); name the tag"
    ) as told:
        load_encoder(parse_spec(f"timm:resnet18:weights={tmp_path / 'x.pth'}"), "image")
    assert "timm:resnet18.a1_in1k:weights=FILE; tags: resnet18.a1_in1k, " in str(told.value)
    tagged = load_encoder(
        parse_spec(f"timm:resnet18.tv_in1k:weights={tmp_path / 'x.pth'}"), "image"
    )
    assert tagged.preprocessing()["interpolation"] == "bilinear"
    said = f"timm:resnet18:weights={tmp_path / 'x.pth'}:crop_pct=0.9:interpolation=bicubic:size=64"
    assert load_encoder(parse_spec(said), "image").preprocessing()["crop_pct"] == 0.9
