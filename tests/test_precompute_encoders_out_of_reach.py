"""What a user sees when a hub is out of reach or refuses: one line, soon, after few questions."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import save_vit, write_dataset
from loopback_hub import COMMIT, LoopbackHub

from benchmarks.measuring.warm import ROOT
from precompute.encoders import FAMILIES, load_encoder
from precompute.encoders import hub as hub_module
from precompute.errors import PrecomputeError
from precompute.taps import main as taps
from vqa_cache.spec import Modality, parse_spec

SECONDS = 60  # after which a hub is still asked again and again
VIT = "hf:someone/vit"
ENCODERS: dict[str, tuple[Modality, str, str]] = {  # family -> modality, spec, repository
    "hf": ("image", VIT, "someone/vit"),
    "st": ("text", "st:someone/sentences", "someone/sentences"),
    "timm": ("image", "timm:test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"),
    "open_clip": (
        "image",
        "open_clip:ViT-B-32/laion2b_s34b_b79k",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    ),
}
TEMPLATE = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
NOWHERE = "http://127.0.0.1:1"


def stage1(
    data: Path, folder: Path, spec: str, kind: str = "image", **more: str
) -> tuple[int, str]:
    """`python -m precompute` without anything downloaded before: its status and stderr."""
    where = ("--dataset", "jsonl", "--root", data, "--cache", folder / "cache")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.lower().endswith("_proxy")
    }
    done = subprocess.run(
        [sys.executable, "-m", "precompute", *map(str, where), f"--{kind}", spec],
        cwd=ROOT,
        env=kept | {"HF_HOME": str(folder), "TORCH_HOME": str(folder / "torch")} | more,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stderr


def refused(data: Path, folder: Path, family: str, **more: str) -> str:
    """The one line about an encoder that is out of reach."""
    modality, spec, _ = ENCODERS[family]
    status, told = stage1(data, folder, spec, modality, **more)
    assert status == 1, told
    assert "Traceback" not in told
    *_, line = told.rstrip("\n").splitlines()
    assert line.startswith(f"error: encoder {spec}:"), told
    assert "without a model hub name a local folder (dir:FOLDER" in line
    return line


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), images=1, train=1, test=0)


@pytest.fixture(scope="module")
def hub(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """Has every repository; "someone/vit" alone can be read, and has what a ViT needs."""
    folder = save_vit(tmp_path_factory.mktemp("hub"))
    names = [repository for _, _, repository in ENCODERS.values()]
    hub = LoopbackHub(dict.fromkeys(names, folder))
    yield hub
    hub.close()


@pytest.fixture
def asked(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """The hub that this process asks, with nothing downloaded."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", TEMPLATE.format(hub.endpoint))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "downloaded"))
    hub.requests.clear()
    return hub


def test_every_family_with_a_hub_is_here() -> None:
    assert set(ENCODERS) == set(FAMILIES) - {"dir", "pkg"}


@pytest.mark.parametrize("family", ["timm", "open_clip"])
def test_no_hub_in_reach(family: str, data: Path, tmp_path: Path) -> None:
    line = refused(data, tmp_path, family, HF_ENDPOINT=NOWHERE)
    assert f"{NOWHERE} does not answer: " in line


@pytest.mark.parametrize("family", ["hf", "st"])
def test_offline(family: str, data: Path, tmp_path: Path) -> None:
    assert "HF_HUB_OFFLINE is set" in refused(data, tmp_path, family, HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("family", ["hf", "open_clip"])
def test_a_hub_that_takes_calls_and_says_nothing(family: str, data: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        line = refused(data, tmp_path, family, HF_ENDPOINT=endpoint)
    assert f"{endpoint} does not answer: " in line


@pytest.mark.parametrize("family", ENCODERS)
def test_a_wrong_revision(family: str, asked: LoopbackHub) -> None:
    modality, spec, repository = ENCODERS[family]
    with pytest.raises(PrecomputeError, match=r"dir:FOLDER") as caught:
        load_encoder(parse_spec(f"{spec}@no-such"), modality)
    assert f"{repository} has no revision 'no-such' on {asked.endpoint}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(asked.files()) == 1, asked.requests


@pytest.mark.parametrize("family", ENCODERS)
def test_a_gated_model(family: str, asked: LoopbackHub) -> None:
    modality, spec, repository = ENCODERS[family]
    asked.gated = frozenset({repository})
    try:
        with pytest.raises(PrecomputeError, match=r"dir:FOLDER") as caught:
            load_encoder(parse_spec(spec), modality)
    finally:
        asked.gated = frozenset()
    told = f"{repository} is gated on {asked.endpoint}: accept its terms there and set HF_TOKEN"
    assert told in str(caught.value)
    assert len(asked.files()) == 1, asked.requests


def test_a_model_that_the_hub_has_not(asked: LoopbackHub) -> None:
    with pytest.raises(PrecomputeError, match=f"{asked.endpoint} has no model 'someone/else'"):
        load_encoder(parse_spec("hf:someone/else"), "image")
    with pytest.raises(PrecomputeError, match="cannot be had"):
        load_encoder(parse_spec("hf:no//name"), "image")


@pytest.mark.parametrize("family", ENCODERS)
def test_taps_ask_a_hub_that_refuses_once(family: str, asked: LoopbackHub) -> None:
    _, spec, _ = ENCODERS[family]
    done = CliRunner().invoke(taps, [f"{spec}@no-such"])
    assert done.exit_code == 1
    assert "has no revision 'no-such'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(asked.files()) == 1, asked.requests


def test_the_hub_is_asked_for_a_tokenizer_before_the_model_is_made(asked: LoopbackHub) -> None:
    spec = parse_spec("hf:bert:random=0:tokenizer=hf:someone/words")
    with pytest.raises(PrecomputeError, match=r"encoder hf:someone/words: .* has no model"):
        hub_module.check_reachable(spec)


def test_what_was_downloaded_serves_when_the_hub_is_gone(
    asked: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # put back after the test
    first = load_encoder(parse_spec(VIT), "image").identity("float16")
    assert first.revision == COMMIT
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", TEMPLATE.format(NOWHERE))
    asked.requests.clear()
    assert load_encoder(parse_spec(VIT), "image").identity("float16") == first
    assert not asked.requests
