"""Both towers of open_clip models, by seed and from a file of weights."""

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
from precompute.errors import PrecomputeError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

TEXTS = ["is it red?", "wow!how many small yellow birds sit on the fence?!", "", "word " * 40]
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
MODELS: dict[str, dict[str, Any]] = {
    "small-vit": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "small-quick": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "small-rn": {
        "embed_dim": 16,
        "vision_cfg": VISION | {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "small-timm": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
}


@pytest.fixture(scope="module", autouse=True)
def models(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Small models beside the ones that open_clip knows."""
    import open_clip

    folder = tmp_path_factory.mktemp("models")
    for name, config in MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    return [str(folder / name) for name in write_images(folder, 3)]


def load(text: str, modality: Modality = "image") -> Encoder:
    return load_encoder(parse_spec(text), modality)


def encode(encoder: Encoder, items: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in items])


def library_model(name: str) -> tuple[Any, Any]:
    """The model and its preprocessing as open_clip itself makes them."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, _, preprocess = open_clip.create_model_and_transforms(name)
    return model.eval(), preprocess


@pytest.fixture(params=list(MODELS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Any, Any]:
    """A model's name, its weights in a file, the model and its preprocessing."""
    model, preprocess = library_model(request.param)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    return request.param, tmp_path / "weights.pt", model, preprocess


def test_images_as_open_clip_computes_them(
    saved: tuple[str, Path, Any, Any], pictures: list[str]
) -> None:
    name, path, model, preprocess = saved
    encoder = load(f"open_clip:{name}:weights={path}")
    pixels = torch.stack([preprocess(Image.open(picture)) for picture in pictures])
    with torch.inference_mode():
        expected = model.encode_image(pixels)
    rows = encode(encoder, pictures)
    assert rows.dtype == torch.float32
    assert rows.shape == expected.shape == (3, *encoder.row_shape)
    assert (rows - expected).abs().max() < 1e-5
    assert (rows.norm(dim=1) - 1).abs().min() > 1e-3  # not normalised


def test_texts_as_open_clip_computes_them(saved: tuple[str, Path, Any, Any]) -> None:
    import open_clip

    name, path, model, _ = saved
    encoder = load(f"open_clip:{name}:weights={path}", "text")
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    assert tokens.shape == (4, 12)
    with torch.inference_mode():
        expected = model.encode_text(tokens)
    rows = encode(encoder, TEXTS)
    assert rows.shape == expected.shape == (4, *encoder.row_shape) == (4, 16)
    assert (rows - expected).abs().max() < 1e-5


def test_padding_of_a_causal_tower_is_not_computed() -> None:
    encoder = load("open_clip:small-vit:random=3", "text")
    widths = []
    module: Any = encoder.module
    module.ln_final.register_forward_hook(lambda _m, _i, output: widths.append(output.shape[1]))
    together = encode(encoder, TEXTS[:3])
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS[:3]])
    assert widths == [12, 6, 12, 2]
    assert (together - alone).abs().max() < 1e-5
    padded = load("open_clip:small-timm:random=3", "text")  # it pools at the last position
    module = padded.module
    module.ln_final.register_forward_hook(lambda _m, _i, output: widths.append(output.shape[1]))
    encode(padded, ["red"])
    assert widths[-1] == 12


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_seed_is_the_model_that_open_clip_makes_of_it(
    modality: Modality, pictures: list[str]
) -> None:
    model, preprocess = library_model("small-vit")
    rows = encode(load("open_clip:small-vit:random=3", modality), [pictures[0]] * 1)
    with torch.inference_mode():
        if modality == "image":
            expected = model.encode_image(preprocess(Image.open(pictures[0]))[None])
        else:
            import open_clip

            expected = model.encode_text(open_clip.get_tokenizer("small-vit")([pictures[0]]))
    assert (rows - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["small-vit", "small-timm"])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_before_the_projection(name: str, modality: Modality, pictures: list[str]) -> None:
    items = pictures if modality == "image" else TEXTS
    pooled = load(f"open_clip:{name}:random=3:tap=pooled", modality)
    rows = encode(pooled, items)
    model, _ = library_model(name)
    part = model.visual if modality == "image" else getattr(model, "text", model)
    names = ("proj", "text_projection", "head")
    projection = next(p for n in names if (p := getattr(part, n, None)) is not None)
    with torch.inference_mode():
        projected = projection(rows) if callable(projection) else rows @ projection
    expected = encode(load(f"open_clip:{name}:random=3", modality), items)
    assert rows.shape == (len(items), *pooled.row_shape)
    assert pooled.row_shape != (16,)
    assert (projected - expected).abs().max() < 1e-5


def test_blocks(pictures: list[str]) -> None:
    model, preprocess = library_model("small-vit")
    seen: dict[str, torch.Tensor] = {}
    block = model.visual.transformer.resblocks[0]
    block.register_forward_hook(lambda _m, _i, output: seen.update(tokens=output))
    with torch.inference_mode():
        model.encode_image(torch.stack([preprocess(Image.open(path)) for path in pictures]))
    tap = "open_clip:small-vit:random=3:tap=transformer.resblocks.0"
    rows = encode(load(tap), pictures)
    assert (rows - seen["tokens"][:, 1:].mean(1)).abs().max() < 1e-5
    grid = encode(load(f"{tap}:grid=2"), pictures)
    assert grid.shape == (3, 4, 32)
    torch.testing.assert_close(grid.mean(1), rows, atol=1e-5, rtol=1e-4)


def norm_outputs(tower: Any, norm: Any, batch: torch.Tensor) -> torch.Tensor:
    """What a tower's last norm gives."""
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_hook(lambda *call: seen.append(call[2].clone()))
    with torch.inference_mode():
        tower(batch)
    hook.remove()
    return seen[0]


def test_patches_of_the_last_layer(pictures: list[str]) -> None:
    encoder = load("open_clip:small-vit:random=3:tap=tokens")
    model, preprocess = library_model("small-vit")
    pixels = torch.stack([preprocess(Image.open(picture)) for picture in pictures])
    expected = norm_outputs(model.visual, model.visual.ln_post, pixels)[:, 1:]
    rows = encode(encoder, pictures)
    assert not encoder.ragged
    assert rows.shape == expected.shape == (3, 16, 32) == (3, *encoder.row_shape)
    assert (rows - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["small-vit", "small-timm"])
def test_tokens_of_a_text_are_as_many_as_it_has(name: str) -> None:
    import open_clip

    encoder = load(f"open_clip:{name}:random=3:tap=tokens", "text")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tower = open_clip.create_model(name, force_custom_text=True).eval().text
    ids = open_clip.get_tokenizer(name)(TEXTS)
    expected = norm_outputs(tower, tower.ln_final, ids)
    lengths = [encoder.length(encoder.prepare(text)) for text in TEXTS]
    assert lengths == [6, 12, 2, 12]
    rows = encode(encoder, TEXTS)
    assert encoder.ragged
    assert rows.shape == (sum(lengths), 24) == (sum(lengths), *encoder.row_shape)
    for row, whole, length in zip(rows.split(lengths), expected, lengths, strict=True):
        assert (row - whole[:length]).abs().max() < 1e-5


def test_a_text_block_is_averaged_over_the_text_alone() -> None:
    encoder = load("open_clip:small-vit:random=3:tap=token_embedding", "text")
    rows = encode(encoder, ["red", "wow!how"])
    table = encoder.module.token_embedding.weight
    for text, row in zip(["red", "wow!how"], rows, strict=True):
        ids = encoder.prepare(text)
        end = int(ids.argmax())  # the end of a text has the highest id
        assert (table[ids[: end + 1]].mean(0) - row).abs().max() < 1e-6


def test_identities_tell_towers_taps_weights_and_activations_apart() -> None:
    specs = [
        ("open_clip:small-vit:random=3", "image"),
        ("open_clip:small-vit:random=3", "text"),
        ("open_clip:small-vit:random=4", "image"),
        ("open_clip:small-vit:random=3:tap=pooled", "image"),
        ("open_clip:small-quick:random=3", "image"),
    ]
    loaded = [load(spec, modality) for spec, modality in specs]  # type: ignore[arg-type]
    assert len({encoder.identity("float16").id for encoder in loaded}) == len(specs)
    again = load(*specs[1])  # type: ignore[arg-type]
    assert again.identity("float16") == loaded[1].identity("float16")
    assert loaded[0].architecture() != loaded[4].architecture()
    assert "@" in loaded[1].identity("float16").table_name(loaded[1].label)


@pytest.mark.parametrize(
    ("spec", "modality", "told"),
    [
        ("open_clip:no-such", "image", r"open_clip has no model 'no-such'"),
        ("open_clip:ViT-B-32", "image", r"expected a tag .* tags: openai"),
        ("open_clip:ViT-B-32/openai:random=0", "image", r"expected a tag"),
        ("open_clip:small-vit:random=0:gird=2", "image", r"unknown option 'gird'"),
        ("open_clip:small-vit:random=0:grid=2", "image", r"which projected is not; name a block"),
        ("open_clip:small-vit:random=0:grid=2", "text", r"unknown option 'grid'"),
        ("open_clip:small-vit:random=0:tap=nowhere", "text", r"no block named 'nowhere'"),
        ("open_clip:small-rn:random=0:tap=pooled", "image", r"no projection apart"),
        ("open_clip:small-rn:random=0:tap=tokens", "image", r"gives no tokens; name tap=projected"),
        ("open_clip:small-vit:random=0:tap=tokens:grid=2", "image", r"which tokens is not"),
        ("open_clip:small-vit:weights=/no/such.pt", "image", r"/no/such\.pt is missing"),
    ],
)
def test_what_cannot_be_is_one_clear_line(spec: str, modality: Modality, told: str) -> None:
    with pytest.raises(PrecomputeError, match=told) as caught:
        load(spec, modality)
    assert "\n" not in str(caught.value)


def test_an_unknown_tag_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    (tmp_path / "models--someone--else").mkdir()  # with nothing downloaded, that comes first
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PrecomputeError, match=r"no weights 'no_such_tag'; tags: openai"):
        load("open_clip:ViT-B-32/no_such_tag")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model, _ = library_model("small-rn")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        PrecomputeError, match=r"weights file .*weights\.pt does not fit: "
    ) as caught:
        load(f"open_clip:small-vit:weights={tmp_path / 'weights.pt'}")
    assert "\n" not in str(caught.value)


def test_the_hub_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PrecomputeError, match="cannot be had") as caught:
        load("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert "weights=FILE" in str(caught.value)
    assert "\n" not in str(caught.value)
