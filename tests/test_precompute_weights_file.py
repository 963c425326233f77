"""`weights=FILE` as training programs write it: what the tap uses is read, the rest is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import write_images

from precompute.__main__ import main
from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import EncoderError
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(libraries: None) -> State:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return timm.create_model("test_resnet").state_dict()


def load(path: Path, content: Any, more: str = "") -> Encoder:
    torch.save(content, path)
    return load_encoder(parse_spec(f"timm:test_resnet:weights={path}:size=32{more}"), "image")


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


WRAPPED: dict[str, Any] = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda s: {"epoch": 3, "model_state_dict": s},
    "module.": lambda s: prefixed(s, "module."),
    "both": lambda s: {"model": prefixed(s, "module._orig_mod.")},
    "in two": lambda s: {"model": {"state_dict": s}},
}


@pytest.mark.parametrize("kind", list(WRAPPED))
def test_wrapped_weights_are_the_same_table(tmp_path: Path, state: State, kind: str) -> None:
    expected = load(tmp_path / "x.pth", state).identity("float16").id
    encoder = load(tmp_path / "x.pth", WRAPPED[kind](state))
    assert encoder.identity("float16").id == expected
    assert encoder.notes == ()


@pytest.mark.parametrize("classes", [0, 10])
def test_a_classifier_that_the_tap_does_not_use_may_be_any(
    tmp_path: Path, state: State, classes: int
) -> None:
    other = {name: value for name, value in state.items() if not name.startswith("fc.")}
    if classes:
        other |= {"fc.weight": torch.zeros(classes, 8), "fc.bias": torch.zeros(classes)}
    encoder = load(tmp_path / "x.pth", other)
    item = encoder.prepare(str(tmp_path / write_images(tmp_path, 1)[0]))
    with torch.inference_mode():
        row = encoder.encode([item])
        expected = load(tmp_path / "x.pth", state).encode([item])
    assert torch.equal(row, expected)
    again = load(
        tmp_path / "x.pth", other
    )  # what the file lacks is random, and not in the identity
    assert again.identity("float16").id == encoder.identity("float16").id
    told = "the file's classifier (fc.weight, fc.bias) is not used by its tap" in str(encoder.notes)
    assert told == bool(classes)
    with pytest.raises(EncoderError, match=r"does not fit: fc\.weight is "):
        load(tmp_path / "x.pth", other, ":tap=fc")


def test_what_is_left_out_is_told_by_a_run(tmp_path: Path, state: State) -> None:
    (name,) = write_images(tmp_path / "data", 1)
    line = {"image": name, "question": "what?", "answer": "a"}
    (tmp_path / "data" / "train.jsonl").write_text(json.dumps(line) + "\n")
    torch.save(state | {"fc.bias": torch.zeros(7)}, tmp_path / "x.pth")
    spec = f"timm:test_resnet:weights={tmp_path / 'x.pth'}:size=32"
    command = ["--dataset", "jsonl", "--root", str(tmp_path / "data"), "--image", spec]
    done = CliRunner().invoke(main, [*command, "--cache", str(tmp_path / "cache")])
    assert done.exit_code == 0, done.output
    assert "the file's classifier (fc.bias) is not used by its tap" in done.output


def without(state: State, name: str) -> State:
    return {other: value for other, value in state.items() if other != name}


WRONG: dict[str, tuple[Any, str]] = {
    "lacks": (
        lambda s: without(s, "layer1.0.conv1.weight"),
        r"layer1\.0\.conv1\.weight is \[.*\] in the model alone",
    ),
    "more": (
        lambda s: s | {"own.weight": torch.zeros(2)},
        r"own\.weight is \[2\] in the file alone",
    ),
    "size": (
        lambda s: s | {"bn1.weight": torch.zeros(2)},
        r"bn1\.weight is \[2\] in the file and \[",
    ),
    "nothing": (
        lambda s: {"epoch": 3, "weights": s},
        r"holds no tensors by name, itself or under state",
    ),
    "tensor": (lambda s: torch.zeros(2), r"holds no tensors by name"),
}


@pytest.mark.parametrize("fault", list(WRONG))
def test_what_does_not_fit_is_named(tmp_path: Path, state: State, fault: str) -> None:
    change, told = WRONG[fault]
    path = re.escape(str(tmp_path / "x.pth"))
    with pytest.raises(EncoderError, match=f"weights file {path} .*{told}") as caught:
        load(tmp_path / "x.pth", change(state))
    assert "\n" not in str(caught.value)
