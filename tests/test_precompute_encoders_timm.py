"""Models of timm against timm's own calls, and taps that experiments name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from conftest import write_images
from PIL import Image

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.encoders.timm_images import TimmImages
from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    return [str(folder / name) for name in write_images(folder, 2)]


def rows_of(encoder: Encoder, pictures: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        rows = encoder.encode([encoder.prepare(picture) for picture in pictures])
    assert rows.shape == (len(pictures), *encoder.row_shape)
    return rows


def library_model(name: str, seed: int) -> Any:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(name).eval()


def library_pixels(model: Any, pictures: list[str], **changes: Any) -> torch.Tensor:
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(model) | changes
    transform = create_transform(**config, is_training=False)
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in pictures])


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_convnext", "test_efficientnet"])
def test_pooled_before_the_classifier(name: str, pictures: list[str]) -> None:
    model = library_model(name, 5)
    model.reset_classifier(0)
    with torch.inference_mode():
        expected = model(library_pixels(model, pictures))
    rows = rows_of(load_encoder(parse_spec(f"timm:{name}:random=5"), "image"), pictures)
    assert (rows - expected).abs().max() < 1e-5


def test_tokens_of_a_transformer(pictures: list[str]) -> None:
    model = library_model("test_vit", 5)
    with torch.inference_mode():
        expected = model.forward_features(library_pixels(model, pictures))
    encoder = load_encoder(parse_spec("timm:test_vit:random=5:tap=tokens"), "image")
    rows = rows_of(encoder, pictures)
    assert rows.shape == (2, 101, 64)  # a class token and 10 x 10 patches
    assert (rows - expected).abs().max() < 1e-5


@pytest.mark.parametrize("spec", ["test_resnet:random=0:size=32", "test_vit:random=0:grid=2"])
def test_what_has_no_tokens(spec: str) -> None:
    with pytest.raises(EncoderError, match=r"no grid= and needs a model of tokens, .* tap=pooled"):
        load_encoder(parse_spec(f"timm:{spec}:tap=tokens"), "image")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets(name: str, pictures: list[str]) -> None:
    spec = f"timm:{name}:random=5:size=64"
    encoder = load_encoder(parse_spec(f"{spec}:tap=layer3:grid=2"), "image")
    # its residual branches are open, which timm's own are not
    model: Any = load_encoder(parse_spec(spec), "image").module
    pixels = library_pixels(model, pictures, input_size=(3, 64, 64))
    with torch.inference_mode():
        _, maps = model.forward_intermediates(pixels, indices=[3])
    quarters = maps[0].unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5))
    rows = rows_of(encoder, pictures)
    assert (rows - quarters.flatten(2).transpose(1, 2)).abs().max() < 1e-4


def test_fc7_before_and_after_its_relu(pictures: list[str]) -> None:
    """The tap of the experiments on VGG16, on a narrow VGG that is built the same."""
    from timm.models.vgg import VGG

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model: Any = VGG([8, "M", 8, "M", 8, "M", 8, "M", 8, "M"]).eval()
    model.pretrained_cfg = {"input_size": (3, 224, 224), "crop_pct": 0.875}
    with torch.inference_mode():
        head = model.pre_logits
        hidden = head.act1(head.fc1(model.features(library_pixels(model, pictures))))
        before = head.fc2(hidden)[:, :, 0, 0].clone()
    after = before.relu()
    assert (before < 0).any()
    expected = {"pooled": after, "pre_logits": after, "pre_logits.fc2": before}
    for tap, rows in expected.items():
        spec = EncoderSpec("timm", "vgg", None, tap, {"random": "5"})
        encoder = TimmImages(spec, copy.deepcopy(model), "vgg", None)
        assert encoder.row_shape == (4096,)
        assert (rows_of(encoder, pictures) - rows).abs().max() < 1e-5


def test_swin_has_its_channels_last(pictures: list[str]) -> None:
    from timm.models.swin_transformer import SwinTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model: Any = SwinTransformer(
            img_size=64, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4
        ).eval()
    model.pretrained_cfg = {"input_size": (3, 64, 64)}
    pixels = library_pixels(model, pictures)
    with torch.inference_mode():
        tokens = model.layers[0](model.patch_embed(pixels))
    assert tokens.shape == (2, 16, 16, 8)
    spec = EncoderSpec("timm", "swin", None, "layers.0", {"random": "5", "grid": "2"})
    rows = rows_of(TimmImages(spec, model, "swin", None), pictures)
    expected = tokens.unflatten(1, (2, 8)).unflatten(3, (2, 8)).mean((2, 4)).flatten(1, 2)
    assert rows.shape == (2, 4, 8)
    assert (rows - expected).abs().max() < 1e-5
