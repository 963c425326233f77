"""`[features]` of an experiment, read as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from precompute.errors import PrecomputeError
from precompute.experiment import read_features
from vqa_cache import experiments


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(
        'seed = 1\n[features]\ndataset = "jsonl"\nimage = "timm:resnet18:random=0"\n'
        '[head]\nname = "x"\n'
    )
    return str(path)


def test_a_file(path: str) -> None:
    features = read_features(path, ())
    assert (features.dataset, features.image) == ("jsonl", "timm:resnet18:random=0")
    assert features.text is None


def test_overrides(path: str) -> None:
    features = read_features(path, ("features.dataset=vqa2", 'features.text="pkg:a/b"'))
    assert (features.dataset, features.text) == ("vqa2", "pkg:a/b")
    assert read_features(path, ("features.image=timm:a:b=c=d",)).image == "timm:a:b=c=d"


def test_several_tables_of_a_modality(path: str) -> None:
    features = read_features(path, ('features.image=["timm:a:random=0", "timm:b:random=0"]',))
    assert features.images == ["timm:a:random=0", "timm:b:random=0"]
    assert features.texts == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("features.images=x",), r"unknown key features.images; known: dataset, image, text"),
        (("image=x",), r"'image=x': expected features.KEY=VALUE"),
        (("features.image",), r"expected features.KEY=VALUE \(KEY one of dataset, image"),
        (("features.image=foo:bar",), r"features.image: .*unknown family 'foo'"),
        (("features.image=3",), r"features.image: expected an encoder spec, or a list of them"),
        (("features.normalise=l9",), r"features.normalise: .*'none'"),
        (("features.a=1", "features.b=2"), r"features.a.*features.b"),
    ],
)
def test_bad_overrides(path: str, overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(PrecomputeError, match=told) as caught:
        read_features(path, overrides)
    assert "\n" not in str(caught.value)


def test_unknown_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "found.toml").write_text("")
    monkeypatch.setattr(experiments, "EXPERIMENTS", tmp_path)
    assert read_features("found", ()).dataset == "easy_vqa"
    with pytest.raises(
        PrecomputeError, match=r"unknown experiment 'lost'; known: found, or a path"
    ):
        read_features("lost", ())
    with pytest.raises(PrecomputeError, match=r"gone\.toml: not found"):
        read_features(str(tmp_path / "gone.toml"), ())


@pytest.mark.parametrize("content", [b"[features", b"\xff\xfe", b"features = 3", b"features = []"])
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(PrecomputeError, match=r"broken\.toml"):
        read_features(str(path), ())
