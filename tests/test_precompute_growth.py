"""A cache grows: only what is missing goes through an encoder, whatever was added."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BERT, RESNET, VIT, write_dataset, write_images

import vqa_cache
from precompute import canaries
from precompute.numerics import Numerics
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings
from vqa_cache.tools.verify import verify

pytestmark = pytest.mark.usefixtures("libraries")


class Counted:
    """Stage 1 with a count of the items that went through an encoder, canaries left out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.items = 0
        launch, together = Numerics.launch, Numerics.launch_together
        prepare = canaries.prepared_canaries
        probes: list[Any] = []

        def kept(encoder: Any) -> list[Any]:
            probes.append(prepare(encoder))
            return list(probes[-1])

        def counting(numerics: Numerics, encoder: Any, prepared: Any) -> Any:
            if not any(prepared[0] is probe[0] for probe in probes):
                self.items += len(prepared)
            return launch(numerics, encoder, prepared)

        def counting_several(numerics: Numerics, encoders: Any, prepared: Any) -> Any:
            if len(encoders) > 1:
                self.items += len(prepared) * len(encoders)
            return together(numerics, encoders, prepared)

        monkeypatch.setattr(canaries, "prepared_canaries", kept)
        monkeypatch.setattr("precompute.independence.prepared_canaries", kept)
        monkeypatch.setattr(Numerics, "launch", counting)
        monkeypatch.setattr(Numerics, "launch_together", counting_several)

    def __call__(self, root: Path, cache: Path, **how: Any) -> int:
        """Run stage 1 and check the cache; items encoded in this run."""
        self.items = 0
        settings = EncoderSettings(precision="fp32", rows_per_shard=4)
        asked = {"image": (VIT,), "text": (BERT,), "settings": settings} | how
        results = precompute(
            Request("jsonl", str(root), str(cache), **asked), ConsoleReporter(quiet=True)
        )
        assert self.items == sum(result.encoded for result in results)
        assert all(result.present + result.encoded == result.wanted for result in results)
        assert list(verify(vqa_cache.open(cache))) == []
        return self.items


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    return Counted(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten images and twenty distinct questions in train, six questions in test."""
    return write_dataset(tmp_path / "data")


FIRST = 10 + 26  # images and questions


def add(root: Path, split: str, *examples: tuple[str, str]) -> None:
    """Append examples (image, question) to a split, perhaps a new one."""
    with open(root / f"{split}.jsonl", "a") as file:
        for image, question in examples:
            line = {"image": f"images/{image}", "question": question, "answer": "yes"}
            file.write(json.dumps(line) + "\n")


def stored(cache: Path) -> dict[str, bytes]:
    """Shards and their records."""
    return {
        str(path): path.read_bytes()
        for part in ("shards", "records")
        for path in cache.glob(f"tables/*/*/*/*/{part}/*")
    }


def test_nothing_new(encoded: Counted, root: Path, tmp_path: Path) -> None:
    assert encoded(root, tmp_path / "cache") == FIRST
    before = stored(tmp_path / "cache")
    assert encoded(root, tmp_path / "cache") == 0
    assert encoded(root, tmp_path / "cache", rehash=True) == 0
    assert stored(tmp_path / "cache") == before


def test_more_images_and_questions(encoded: Counted, root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert encoded(root, cache) == FIRST
    before = stored(cache)
    new = write_images(tmp_path / "new", 3, seed=9)
    for name in new:
        (tmp_path / "new" / name).rename(root / "images" / f"new-{name}")
    known = "is number 0 big?"
    add(root, "train", *((f"new-{name}", known) for name in new))
    assert encoded(root, cache) == 3
    add(root, "train", ("0.png", "what is new?"), ("1.jpg", "what is new?"), ("2.png", "and this?"))
    assert encoded(root, cache) == 2
    after = stored(cache)
    assert {name: after[name] for name in before} == before  # what was there is not touched


def test_a_copy_of_an_image_and_another_form_of_a_text_are_known(
    encoded: Counted, root: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    add(root, "train", ("0.png", "gr\u00f6\u00dfer?"))
    assert encoded(root, cache) == FIRST + 1
    (root / "images" / "copy.png").write_bytes((root / "images" / "0.png").read_bytes())
    add(root, "train", ("copy.png", "gro\u0308\u00dfer?"))
    assert encoded(root, cache) == 0


def test_a_split(encoded: Counted, root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    train = encoded(root, cache, splits=("train",))
    add(root, "val", ("3.jpg", "is it in val alone?"), ("3.jpg", "is number 0 big?"))
    assert encoded(root, cache, splits=("train", "val")) == 1
    assert encoded(root, cache) == FIRST - train
    assert vqa_cache.open(cache).splits == ["jsonl/test", "jsonl/train", "jsonl/val"]


def test_a_second_dataset_on_the_same_images(encoded: Counted, root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert encoded(root, cache) == FIRST
    other = tmp_path / "other"
    (other / "elsewhere").mkdir(parents=True)
    for path in (root / "images").iterdir():  # other names, the same pictures
        (other / "elsewhere" / f"renamed-{path.name}").write_bytes(path.read_bytes())
    lines = [
        {"image": f"elsewhere/renamed-{n}.{'jpg' if n % 2 else 'png'}", "question": question}
        for n, question in enumerate(["is number 0 big?", "is this another dataset?"])
    ]
    (other / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert encoded(other, cache) == 1


@pytest.mark.parametrize(
    ("image", "new"),
    [(RESNET, 10), (f"{VIT}:tap=mean", 10), (f"{VIT}:grid=2", 10), (f"{VIT}:tap=cls", 0)],
)
def test_a_second_encoder_or_tap(
    encoded: Counted, root: Path, tmp_path: Path, image: str, new: int
) -> None:
    cache = tmp_path / "cache"
    assert encoded(root, cache) == FIRST
    before = stored(cache)
    assert encoded(root, cache, image=(VIT, image)) == new
    assert len(vqa_cache.open(cache).tables) == (3 if new else 2)
    after = stored(cache)
    assert {name: after[name] for name in before} == before
    assert encoded(root, cache, image=(image, VIT)) == 0


def test_answers_after_questions(encoded: Counted, root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert encoded(root, cache) == FIRST
    answers = 2 + 13 + 13 + 1  # "yes", "no", "a N", their normal forms, "other"
    assert encoded(root, cache, answer_text=(BERT,)) == answers
    assert encoded(root, cache, image=(), text=(), answer_text=(BERT,)) == 0


def test_a_limit_that_rises(encoded: Counted, root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    counts = [encoded(root, cache, splits=("train",), limit=limit) for limit in (5, 5, 8, 20)]
    assert counts == [10, 0, 6, 14]
