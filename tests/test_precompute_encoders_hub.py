"""Every family reads pretrained weights: seeded models in a hub's local cache, without a hub.

The identity holds the commit that a revision means.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_bert, save_vit, write_images

from precompute.encoders import FAMILIES, load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import PrecomputeError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

OLD, NEW = "a" * 40, "b" * 40
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def save_timm(folder: Path, seed: int) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "model.safetensors")


def save_clip(folder: Path, seed: int) -> None:
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    state = open_clip.create_model("cached-clip").state_dict()
    save_file(state, folder / "open_clip_model.safetensors")


def save_sentences(folder: Path, seed: int) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    bert = save_bert(folder / "bert", seed)
    modules = [Transformer(str(bert)), Pooling(32, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    shutil.rmtree(bert)


# family -> spec, modality, repository, what writes its files
CACHED: dict[str, tuple[str, Modality, str, Callable[[Path, int], object]]] = {
    "timm": ("timm:test_resnet.r160_in1k", "image", "timm/test_resnet.r160_in1k", save_timm),
    "hf": ("hf:someone/vit", "image", "someone/vit", save_vit),
    "hf texts": ("hf:someone/bert", "text", "someone/bert", save_bert),
    "st": ("st:someone/sentences", "text", "someone/sentences", save_sentences),
    "open_clip": ("open_clip:cached-clip/small", "image", "someone/clip", save_clip),
    "open_clip texts": ("open_clip:cached-clip/small", "text", "someone/clip", save_clip),
}


@pytest.fixture(scope="module")
def hub_cache(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's cache with two commits of each model; `main` is the newer, `v1` the older one."""
    import open_clip

    config = tmp_path_factory.mktemp("configs") / "cached-clip.json"
    config.write_text(json.dumps(CLIP))
    open_clip.add_model_config(config)
    root = tmp_path_factory.mktemp("hub")
    with torch.random.fork_rng(devices=[]):
        for _, _, repository, save in CACHED.values():
            folder = root / f"models--{repository.replace('/', '--')}"
            if folder.exists():
                continue
            (folder / "refs").mkdir(parents=True)
            for ref, commit, seed in (("v1", OLD, 1), ("main", NEW, 2)):
                (folder / "refs" / ref).write_text(commit)
                (folder / "snapshots" / commit).mkdir(parents=True)
                save(folder / "snapshots" / commit, seed)
    return root


@pytest.fixture
def offline(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from open_clip import pretrained

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    small = {"hf_hub": "someone/clip/", "quick_gelu": True, "mean": (0.5, 0.5, 0.5)}
    monkeypatch.setitem(pretrained._PRETRAINED, "cached-clip", {"small": small})


def load(name: str, revision: str = "") -> Encoder:
    spec, modality, _, _ = CACHED[name]
    return load_encoder(parse_spec(spec + revision), modality)


def test_every_family_with_a_hub_is_here() -> None:
    assert {name.split()[0] for name in CACHED} == set(FAMILIES) - {"dir", "pkg"}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", CACHED)
def test_a_revision_is_resolved_to_its_commit(name: str, tmp_path: Path) -> None:
    newest, tagged, pinned = load(name), load(name, "@v1"), load(name, f"@{OLD}")
    assert newest.identity("float16").revision == NEW
    assert tagged.identity("float16").revision == OLD
    assert tagged.identity("float16") == pinned.identity("float16")
    assert newest.identity("float16").weights != tagged.identity("float16").weights
    assert not newest.untrained
    items = ["is it red?", "yes"]
    if newest.modality == "image":
        items = [str(tmp_path / file) for file in write_images(tmp_path, 2)]
    rows: list[Any] = []
    for encoder in (newest, tagged):
        with torch.inference_mode():
            rows.append(encoder.encode([encoder.prepare(item) for item in items]))
        assert rows[-1].shape == (2, *encoder.row_shape)
    assert (rows[0] - rows[1]).abs().max() > 1e-3


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", CACHED)
def test_a_revision_that_cannot_be_had_is_one_clear_line(name: str) -> None:
    with pytest.raises(PrecomputeError, match="cannot be had") as caught:
        load(name, "@no-such-revision")
    assert "no-such-revision" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_a_tag_brings_its_activation_and_its_preprocessing() -> None:
    encoder = load("open_clip")
    assert encoder.architecture()["config"]["quick_gelu"] is True
    assert "QuickGELU" in repr(encoder.module)
    assert encoder.preprocessing()["mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("timm:test_resnet@main:random=0", "leave out one of @main and random="),
        ("open_clip:RN50@main:weights=x", "leave out one of @main and weights="),
        ("hf:vit@main:random=0", "leave out one of @main and random="),
        ("timm:botnet50ts_256@main", r"no weights .* on a hub, so it has no revisions"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_a_revision_of_nothing_is_refused(spec: str, told: str) -> None:
    with pytest.raises(PrecomputeError, match=told):
        load_encoder(parse_spec(spec), "image")
