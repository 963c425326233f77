"""Which layer: accuracy by tap of one encoder, on a small real cache."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from test_train_small_cache import (
    build_cache,
    image_key_of,
    image_row,
    small_dataset,
    write_table,
)

from train.ridge.command import command
from vqa_cache.cache import Cache
from vqa_cache.spec import each_tap

ENCODER = "timm:resnet50:random=0"
TAPS = f"{ENCODER}:tap=layer1+layer3+pooled"


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Three taps more, of which the middle one alone knows an image's colour."""
    dataset = small_dataset()
    cache = build_cache(tmp_path_factory.mktemp("tapped") / "cache", dataset)
    images = sorted({item.images[0] for items in dataset.splits.values() for item in items})
    keys = [image_key_of(image) for image in images]
    draw = np.random.default_rng(0)
    noise = [draw.normal(size=(2, 3)).astype(np.float16) for _ in images]
    for tap, rows in (
        ("layer1", noise),
        ("layer3", [image_row(image, 4) for image in images]),
        ("pooled", noise),
    ):
        write_table(cache, f"{ENCODER}:tap={tap}", "image", keys, rows)
    return cache


def ridge(cache: Cache, *words: str) -> Result:
    line = ["features.dataset=tiny", "--cache", str(cache.path), *words]
    return CliRunner().invoke(command, line, env={"COLUMNS": "200"})


def test_accuracy_by_tap_alone_and_beside_the_question(tapped: Cache, tmp_path: Path) -> None:
    picture = tmp_path / "layers.png"
    done = ridge(tapped, "--layers", TAPS, "--picture", str(picture), "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["taps"].values()) == ["layer1", "layer3", "pooled"]
    text = next(name for name in tapped.tables if name.startswith("text/"))
    heads = {(head["image"], head["text"]): head["accuracy"] for head in found["heads"]}
    assert heads.keys() == {
        (tap, other) for tap in (None, *found["taps"]) for other in (None, text) if tap or other
    }  # no other encoder's
    first, middle, last = found["taps"]
    assert (
        heads[middle, text] > max(heads[first, text], heads[last, text], heads[None, text]) + 0.05
    )
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        colours = drawn.convert("RGB").getcolors(1 << 24)
    assert {colour for _, colour in colours or ()} >= {(31, 119, 180), (255, 127, 14)}  # both lines
    first_bytes = picture.read_bytes()
    ridge(tapped, "--layers", TAPS, "--picture", str(picture))
    assert picture.read_bytes() == first_bytes


def test_the_table_keeps_the_order_of_the_taps(tapped: Cache) -> None:
    done = ridge(tapped, "--layers", f"{ENCODER}:tap=pooled", "--layers", f"{ENCODER}:tap=layer1")
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    title = next(place for place, row in enumerate(rows) if row == ["accuracy", "by", "tap"])
    assert [row[0] for row in rows[title + 3 :]] == ["pooled", "layer1", "none"]
    assert [row[1] for row in rows[title + 3 :]] == ["6", "6", "-"]
    assert rows[-1][2] == "-"  # no head reads nothing
    assert 0 < float(rows[-1][3]) < 1  # the question alone


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((f"{ENCODER}:tap=layer1",), "expected several taps of one encoder .*, found one tap"),
        (
            (f"{ENCODER}:tap=layer1", "timm:resnet18:random=0:tap=layer2:grid=2"),
            r"expected several taps of one encoder .*, found taps of timm:resnet18.*resnet50",
        ),
        ((f"{ENCODER}:tap=layer1+zzz",), r"no image table in .*zzz.*encode the taps first: docs/"),
        ((f"{ENCODER}:tap=layer1+",), r"expected different names, tap=a\+b"),
    ],
    ids=["one tap", "two encoders", "not encoded", "an empty name"],
)
def test_what_is_no_choice_of_layers_is_one_line(
    tapped: Cache, words: tuple[str, ...], told: str
) -> None:
    done = ridge(tapped, *(word for spec in words for word in ("--layers", spec)))
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert re.search(told, line), line


def test_a_picture_that_cannot_be_drawn_is_one_line(tapped: Cache, tmp_path: Path) -> None:
    done = ridge(tapped, "--picture", "a.png")
    assert (done.exit_code, "name the taps with --layers" in done.stderr) == (2, True)
    done = ridge(tapped, "--layers", TAPS, "--picture", str(tmp_path / "none" / "a.png"))
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].endswith("none/a.png: No such file or directory")


def test_the_documented_command_runs(tapped: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of docs/encoders.md, its encoder's taps being those of the small cache."""
    document = (Path(__file__).parent.parent / "docs" / "encoders.md").read_text()
    [typed] = re.findall(r"^python -m train\.ridge (.*--layers.*)$", document, re.MULTILINE)
    words = shlex.split(typed)
    named = words[words.index("--layers") + 1]
    words[words.index(named)] = TAPS
    assert len(each_tap(named)) == 3
    monkeypatch.chdir(tapped.path.parent)
    done = ridge(tapped, *(word for word in words if not word.startswith("features.")))
    assert done.exit_code == 0, done.stderr
    assert Path(words[words.index("--picture") + 1]).exists()
