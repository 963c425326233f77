"""Several taps of one model in one pass: the bytes of runs of their own, whatever comes between."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import BERT, RESNET, VIT, write_dataset
from test_precompute_crash import assert_same, command, kept
from test_precompute_pipeline import Told, counts, run

import vqa_cache
from benchmarks.measuring.warm import Warm
from precompute.encoders.timm_images import TimmImages
from precompute.errors import EncoderError, PrecomputeError
from precompute.estimate import estimate
from precompute.passes import forward_passes
from precompute.pipeline import Request
from precompute.tables import EncoderSettings
from vqa_cache.spec import SpecError, each_tap

pytestmark = pytest.mark.usefixtures("libraries")
TAPS = (f"{RESNET}:tap=layer1:grid=2", f"{RESNET}:tap=layer3", RESNET)
SHORT = f"{RESNET}:tap=layer1+layer3+pooled"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("small") / "data", images=7, train=6, test=3)


def alone(dataset: Path, cache: Path, *specs: str, modality: str = "image", **how: Any) -> Any:
    """The files of a cache whose tables were each filled by a run of its own."""
    for spec in specs:
        run(dataset, cache, shard=3, **{"image": (), "text": (), modality: (spec,)} | how)
    return kept(cache)


def test_one_pass_writes_the_bytes_of_several(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = alone(small, tmp_path / "alone", *TAPS)
    decoded: list[str] = []
    prepare = TimmImages.prepare
    monkeypatch.setattr(
        TimmImages, "prepare", lambda self, item: decoded.append(item) or prepare(self, item)
    )
    told = Told()
    results = run(small, tmp_path / "one", shard=3, image=TAPS, text=(), told=told)
    assert_same(tmp_path / "one", whole)
    assert counts(results) == [(7, 0, 7)] * 3
    assert len([item for item in decoded if str(small) in item]) == 7  # each image once
    assert [(total, done) for _, total, done in told.begun] == [(7, 0)]
    assert told.advanced == 7
    assert counts(run(small, tmp_path / "one", shard=3, image=TAPS, text=())) == [(7, 7, 0)] * 3


@pytest.mark.parametrize(
    ("modality", "specs"),
    [
        ("image", (f"{VIT}:tap=mean:grid=2", f"{VIT}:tap=tokens", f"{VIT}:tap=layers.0")),
        ("text", (f"{BERT}:tap=cls", f"{BERT}:tap=tokens", f"{BERT}:tap=encoder.layer.0")),
    ],
)
def test_taps_of_whole_models_tokens_and_blocks(
    small: Path, tmp_path: Path, modality: str, specs: tuple[str, ...]
) -> None:
    whole = alone(small, tmp_path / "alone", *specs, modality=modality)
    run(small, tmp_path / "one", shard=3, **{"image": (), "text": (), modality: specs})
    assert_same(tmp_path / "one", whole)


def test_a_table_that_is_ahead_of_the_others(small: Path, tmp_path: Path) -> None:
    """Half of one table is there, and all of another: the rest is shared where keys agree."""
    whole = alone(small, tmp_path / "alone", *TAPS)
    cache = tmp_path / "cache"
    run(small, cache, shard=3, image=(TAPS[1],), text=())
    assert counts(run(small, cache, shard=3, image=TAPS, text=())) == [
        (7, 0, 7),
        (7, 7, 0),
        (7, 0, 7),
    ]
    assert_same(cache, whole)
    table = vqa_cache.open(cache).find_table(TAPS[0], "image")
    gone = sorted((table.folder / "records").glob("*.json"))[0]
    gone.unlink()
    (table.folder / "seal.json").unlink()
    run(small, cache, shard=3, image=TAPS, text=())
    assert_same(cache, whole)


@pytest.mark.parametrize("share", [0.6])
def test_killed_amid_a_pass_and_run_again(
    warm: Warm, small: Path, tmp_path: Path, share: float
) -> None:
    whole = tmp_path / "whole"
    done = warm(*command(small, whole, "--image", SHORT, "--rows-per-shard", 2), count=1)
    assert done.status == 0, done.stderr
    again = command(small, tmp_path / "cache", "--image", SHORT, "--rows-per-shard", 2)
    killed = warm(*again, kill_at=int(share * len(done.operations)))
    assert killed.status == -signal.SIGKILL
    assert warm(*again).status == 0
    assert_same(tmp_path / "cache", kept(whole))


def test_damage_in_one_table_of_a_pass_is_repaired(small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(small, cache, shard=3, image=TAPS, text=())
    whole = kept(cache)
    table = vqa_cache.open(cache).find_table(TAPS[1], "image")
    shard = sorted((table.folder / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    results = run(small, cache, shard=3, image=TAPS, text=(), repair=True)
    assert [one.repaired for one in results] == [0, 1, 0]
    assert_same(cache, whole)


def test_several_stored_types_in_one_pass(small: Path, tmp_path: Path) -> None:
    settings = {
        dtype: EncoderSettings(dtype, "fp32", rows_per_shard=3) for dtype in ("fp16", "fp32")
    }
    for one in settings.values():
        run(small, tmp_path / "alone", image=(RESNET,), text=(), settings=one)
    how = {"settings": settings["fp16"], "also_stored": ("fp32",)}
    told = Told()
    run(small, tmp_path / "one", image=(RESNET,), text=(), told=told, **how)
    assert len(told.begun) == 1
    assert_same(tmp_path / "one", kept(tmp_path / "alone"))


def test_one_failed_item_fails_in_every_table_and_one_that_overflows_in_its_own(
    tmp_path: Path,
) -> None:
    dataset = write_dataset(tmp_path / "data", images=4, train=4, test=0)
    (dataset / "images" / "2.png").write_bytes(b"no image")
    results = run(dataset, tmp_path / "cache", image=TAPS, text=(), on_error="skip")
    assert [(one.encoded, one.failed) for one in results] == [(3, 1)] * 3


def test_a_table_named_twice_is_filled_once(small: Path, tmp_path: Path) -> None:
    results = run(small, tmp_path / "cache", image=(RESNET, f"{RESNET}:tap=pooled"), text=())
    assert counts(results) == [(7, 0, 7), (7, 7, 0)]


def test_a_dry_run_shares_the_time_of_a_pass(small: Path, tmp_path: Path) -> None:
    settings = EncoderSettings(precision="fp32")
    request = Request("jsonl", str(small), str(tmp_path / "c"), image=(SHORT,), settings=settings)
    found = estimate(request)
    assert [one.missing for one in found] == [7] * 3
    assert len({one.seconds for one in found}) == 1
    assert [one.bytes > 0 for one in found] == [True] * 3
    assert not (tmp_path / "c").exists()


def test_tap_a_plus_b_is_short_for_several_specs() -> None:
    assert each_tap(SHORT) == [f"{RESNET}:tap={tap}" for tap in ("layer1", "layer3", "pooled")]
    assert each_tap(RESNET) == [RESNET]
    for text in (f"{RESNET}:tap=layer1+", f"{RESNET}:tap=layer1+layer1"):
        with pytest.raises(SpecError, match=r"expected different names, tap=a\+b"):
            each_tap(text)


def test_an_unknown_one_of_several_taps_is_named_before_anything_is_encoded(
    small: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        EncoderError, match=r"tap=zzz.*no block named 'zzz'; the model has: .*layer1"
    ):
        run(small, tmp_path / "cache", image=(f"{RESNET}:tap=layer1+zzz",), text=())
    assert len(vqa_cache.open(tmp_path / "cache").find_table(f"{RESNET}:tap=layer1", "image")) == 0


def test_an_experiment_reads_one_tap(tmp_path: Path) -> None:
    from precompute.experiment import read_features

    path = tmp_path / "two.toml"
    path.write_text(f"[features]\nimage = {json.dumps(SHORT)}\n")
    told = r"features\.image: .* names 3 tables; list them one by one: .*tap=layer3"
    with pytest.raises(PrecomputeError, match=told) as caught:
        read_features(str(path), ())
    assert "\n" not in str(caught.value)


def test_what_computes_otherwise_goes_by_itself(small: Path, tmp_path: Path) -> None:
    """A table keeps to what it recorded: a batch of another size is another pass."""
    from precompute.tables import OpenedTable
    from vqa_cache.spec import parse_spec

    cache = tmp_path / "cache"
    settings = EncoderSettings(precision="fp32", batch_size=2)
    run(small, cache, image=(TAPS[0],), text=(), settings=settings)
    run(small, cache, image=(TAPS[1], TAPS[2]), text=())
    opened = vqa_cache.open(cache)
    tables = [
        OpenedTable(
            opened.find_table(spec, "image"), parse_spec(spec).with_default_tap("image"), "image"
        )
        for spec in TAPS
    ]
    assert forward_passes(tables) == [[0], [1, 2]]
