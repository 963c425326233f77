"""From a picture to an input: faults of one picture are its own, and all have one shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import RESNET, write_images
from PIL import Image

import vqa_cache
from precompute.__main__ import main
from precompute.encoders import load_encoder
from precompute.encoders.images import OPENING, pixels_of
from precompute.errors import EncoderError, ItemError
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError(), r"^cannot be preprocessed \(ValueError\)$"),
        (RuntimeError("no\nroom"), r"^cannot be preprocessed \(RuntimeError: no room\)$"),
    ],
)
def test_a_fault_behind_decoding_is_the_pictures_own(
    tmp_path: Path, raised: Exception, told: str
) -> None:
    def transform(_picture: Image.Image) -> torch.Tensor:
        raise raised

    (name,) = write_images(tmp_path, 1)
    with pytest.raises(ItemError, match=told):
        pixels_of(str(tmp_path / name), transform)


def test_a_picture_too_elongated_is_left_out_and_named(tmp_path: Path) -> None:
    names = write_images(tmp_path / "data", 2)
    Image.new("RGB", (30000, 1)).save(tmp_path / "data" / "long.png")
    lines = [{"image": n, "question": "what?", "answer": "a"} for n in (*names, "long.png")]
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    command = ["--dataset", "jsonl", "--root", str(tmp_path / "data"), "--image", RESNET]
    command += ["--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert f"{tmp_path / 'data' / 'long.png'}: is 30000x1 pixels, one side more" in done.output
    done = CliRunner().invoke(main, [*command, "--on-error", "skip"])
    assert done.exit_code == 0, done.output
    (table,) = vqa_cache.open(tmp_path / "cache").tables.values()
    assert (len(table), list(table.failed.values())) == (
        2,
        ["is 30000x1 pixels, one side more than 100 times the other; crop it"],
    )


def save_dinov2(folder: Path, **processor: Any) -> Path:
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=56, patch_size=14)).save_pretrained(folder)
    settings = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    BitImageProcessorPil(**settings | processor).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "processor", [{"do_center_crop": False}, {"do_resize": False} | {"do_center_crop": False}]
)
def test_preprocessing_that_keeps_the_pictures_shape_is_refused(
    tmp_path: Path, processor: dict[str, Any]
) -> None:
    """Each picture alone would pass, and the first batch of two shapes end the run."""
    folder = save_dinov2(tmp_path / "dinov2", **processor)
    with pytest.raises(EncoderError, match=r"keeps the pictures' own shape \(a wide one") as caught:
        load_encoder(parse_spec(f"dir:{folder}"), "image")
    assert "\n" not in str(caught.value)
    assert "a tall one as " in str(caught.value)
    assert load_encoder(parse_spec(f"dir:{save_dinov2(tmp_path / 'whole')}"), "image").row_shape


def test_what_is_done_to_transparency_is_in_every_image_identity() -> None:
    assert OPENING["transparency"] == "on white"
    specs = (RESNET, "open_clip:RN50:random=0")
    for spec in specs:
        assert load_encoder(parse_spec(spec), "image").preprocessing().items() >= OPENING.items()
