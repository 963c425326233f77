"""Columns of a split: generations, damage, several images, unlabelled."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vqa_cache import examples
from vqa_cache.arrays import text_arrays
from vqa_cache.cache import create_cache
from vqa_cache.contents import list_contents
from vqa_cache.errors import CacheError, DamagedError, NewerFormatError
from vqa_cache.keys import canonical_json, pack_keys, text_key
from vqa_cache.records.split import Skipped, read_split_record
from vqa_cache.tools.verify import verify


def columns(questions: list[str], **more: Any) -> examples.Columns:
    """One example a question, all of one image."""
    count = len(questions)
    return {
        "question_id": np.arange(count, dtype=np.int64),
        "image_id": np.full(count, 7, dtype=np.int64),
        "image_keys": pack_keys([b"i" * 16]),
        "image_positions": np.zeros(count, dtype=np.int32),
        "question_keys": pack_keys([text_key(text) for text in questions]),
        "question_positions": np.arange(count, dtype=np.int32),
        **text_arrays("question_text", questions),
        **text_arrays("answer_text", ["yes", ""]),
        "answer": np.full(count, 1, dtype=np.int32),
        "answers": np.full(2 * count, 0, dtype=np.int32),
        "answers_offsets": np.arange(0, 2 * count + 1, 2, dtype=np.int64),
        "question_type": np.full(count, -1, dtype=np.int32),
        "answer_type": np.zeros(count, dtype=np.int32),
        **text_arrays("question_type_text", []),
        **text_arrays("answer_type_text", ["yes/no"]),
        **more,
    }


def write(folder: Path, found: examples.Columns, **how: Any) -> bool:
    settings: dict[str, Any] = {
        "examples": len(found["answer"]), "annotated": True, "limit": None, "skipped": []
    }  # fmt: skip
    return examples.write_split(folder, found, **settings | how)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the split "d/train" of a cache goes."""
    return create_cache(tmp_path / "cache").path / "examples" / "d" / "train"


def opened(folder: Path) -> Any:
    from vqa_cache import open as open_cache

    return open_cache(folder.parents[2])


def test_what_is_written_is_read(folder: Path) -> None:
    assert write(folder, columns(["a?", "größer?"]), skipped=[Skipped("image", "x.png", "gone")])
    cache = opened(folder)
    assert cache.splits == ["d/train"]
    split = cache.split("d/train")
    assert (split.name, len(split), split.annotated, split.limit) == ("d/train", 2, True, None)
    assert split.question_texts == ["a?", "größer?"]
    assert split.skipped == (Skipped("image", "x.png", "gone"),)
    assert split.question_keys.dtype == np.uint8
    assert split.image_lists is None
    frame = cache.examples("d/train")
    assert list(frame.columns) == [
        "question_id", "image_id", "image_key", "question", "answer", "answers",
        "question_type", "answer_type",
    ]  # fmt: skip
    assert frame["question_id"].tolist() == [0, 1]
    assert frame["image_key"].tolist() == [(b"i" * 16).hex()] * 2
    assert frame["answer"].tolist() == ["", ""]
    assert frame["answers"].tolist() == [["yes", "yes"]] * 2
    assert frame["question_type"].isna().all()
    assert frame["answer_type"].tolist() == ["yes/no", "yes/no"]


def test_h5py_alone_reads_the_columns(folder: Path) -> None:
    write(folder, columns(["a?", "b?"]))
    with h5py.File(folder / "000001.h5") as file:
        assert bytes(file["question_text_bytes"][...]) == b"a?b?"
        assert file["question_text_offsets"][...].tolist() == [0, 2, 4]
        assert file["question_keys"].shape == (2, 16)


def test_the_content_is_a_digest_of_every_array(folder: Path) -> None:
    found = columns(["a?"])
    write(folder, found)
    digest = hashlib.sha256(canonical_json({"annotated": True, "limit": None, "skipped": []}))
    for name, column in sorted(found.items()):
        head = f"{name}:{column.dtype}:{list(column.shape)}".encode()
        digest.update(len(head).to_bytes(8, "little") + head + column.tobytes())
    assert opened(folder).split("d/train").digest == digest.hexdigest()[:32]


def test_the_same_content_writes_nothing(folder: Path) -> None:
    assert write(folder, columns(["a?"]))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert not write(folder, columns(["a?"]))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert sorted(before) == ["000001.h5", "000001.json"]


@pytest.mark.parametrize(
    "how", [{"annotated": False}, {"limit": 5}, {"skipped": (Skipped("example", 1, "x"),)}]
)
def test_other_content_is_the_next_generation(folder: Path, how: dict[str, Any]) -> None:
    write(folder, columns(["a?"]))
    assert write(folder, columns(["a?"]), **how)
    assert sorted(path.name for path in folder.glob("*.json")) == ["000001.json", "000002.json"]
    split = opened(folder).split("d/train")
    assert all(getattr(split, name) == value for name, value in how.items())
    assert write(folder, columns(["b?"]))
    assert opened(folder).split("d/train").question_texts == ["b?"]
    assert examples.current_record(folder).generation == 3  # type: ignore[index]


@pytest.mark.parametrize("damage", ["flip", "delete", "of another split", "older"])
def test_a_damaged_generation_never_falls_back(folder: Path, damage: str) -> None:
    """An older generation is another set of examples: training on it would tell of nothing."""
    write(folder, columns(["a?"]))
    write(folder, columns(["b?"]))
    root, path = folder.parents[2], folder / "000002.json"
    list_contents(root, splits=["d/train"])
    good = {one.name: one.read_bytes() for one in folder.iterdir()}
    if damage == "flip":
        path.write_bytes(good[path.name].replace(b'"limit":null', b'"limit":1111'))
    elif damage == "of another split":
        write(folder.with_name("val"), columns(["c?"]))
        write(folder.with_name("val"), columns(["d?"]))
        for name in ("000002.json", "000002.h5"):
            (folder / name).write_bytes((folder.with_name("val") / name).read_bytes())
    elif damage == "older":
        path.unlink()
        (folder / "000002.h5").unlink()
    else:
        path.unlink()
    with pytest.raises(DamagedError, match=r"write it again: the command of stage 1"):
        opened(folder).split("d/train")
    assert any(str(folder) in line for line in verify(opened(folder)))
    assert write(folder, columns(["b?"]))
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == good
    assert opened(folder).split("d/train").question_texts == ["b?"]


def test_a_split_that_was_deleted_is_missed(folder: Path) -> None:
    write(folder, columns(["a?"]))
    list_contents(folder.parents[2], splits=["d/train"])
    shutil.rmtree(folder)
    assert opened(folder).splits == ["d/train"]
    with pytest.raises(DamagedError, match="generation 1 is gone; write it again"):
        opened(folder).split("d/train")


def test_a_newer_generation_is_an_error(folder: Path) -> None:
    write(folder, columns(["a?"]))
    path = folder / "000001.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1}', b'"version":4}'))
    with pytest.raises(NewerFormatError, match="version 4"):
        opened(folder).split("d/train")


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_damaged_columns_are_told_and_mended(folder: Path, damage: str) -> None:
    write(folder, columns(["a?", "b?"]))
    path = folder / "000001.h5"
    if damage == "delete":
        path.unlink()
    else:
        content = path.read_bytes()
        place = content.index(b"a?b?")
        path.write_bytes(content[:place] + b"c" + content[place + 1 :])
    with pytest.raises(DamagedError, match=r"000001\.h5"):
        opened(folder).split("d/train")
    write(folder, columns(["a?", "b?"]))  # what running stage 1 again does
    assert opened(folder).split("d/train").question_texts == ["a?", "b?"]


def test_a_split_whose_only_generation_is_damaged_is_said_to_be(folder: Path) -> None:
    write(folder, columns(["a?"]))
    (folder / "000001.json").write_bytes(b"{")
    with pytest.raises(CacheError) as caught:
        opened(folder).split("d/train")
    # "no split 'd/train'; the cache has: d/train" would be a riddle
    assert "the cache has: d/train" not in str(caught.value)


def test_an_unknown_split_names_the_known(folder: Path) -> None:
    write(folder, columns(["a?"]))
    with pytest.raises(CacheError, match=r"no split 'd/val'; the cache has: d/train"):
        opened(folder).split("d/val")


def test_the_next_generation_needs_no_record_of_the_last(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "000001.h5").write_bytes(b"left by a writer that died")
    (folder / ".tmp-host-1-000009.json").write_bytes(b"{")
    assert write(folder, columns(["a?"]))
    assert examples.current_record(folder).generation == 1  # type: ignore[index]


def test_several_images(folder: Path) -> None:
    found = columns(
        ["a?", "b?"],
        image_keys=pack_keys([b"i" * 16, b"j" * 16]),
        image_positions=np.array([1, 0, -1], dtype=np.int32),
        image_offsets=np.array([0, 2, 3], dtype=np.int64),
    )
    write(folder, found)
    split = opened(folder).split("d/train")
    assert split.image_positions.tolist() == [1, -1]
    assert split.image_lists is not None
    assert [part.tolist() for part in split.image_lists] == [[1, 0, -1], [0, 2, 3]]
    keys = split.to_pandas()["image_key"]
    assert keys[0] == (b"j" * 16).hex()
    assert keys.isna().tolist() == [False, True]


def test_a_split_without_examples(folder: Path) -> None:
    write(folder, columns([]), skipped=[Skipped("example", 1, "no answer")])
    split = opened(folder).split("d/train")
    assert len(split) == 0
    assert len(split.to_pandas()) == 0


@pytest.mark.parametrize("meanwhile", ["the same", "something else"])
def test_another_writer_between_looking_and_writing(
    folder: Path, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one, of a smoke test beside the full run, commits while this one syncs."""
    mine = columns(["is it red?"])
    others = mine if meanwhile == "the same" else columns(["is it blue?"])
    sync = examples.sync_tree

    def synced(path: Path) -> None:
        sync(path)
        monkeypatch.setattr(examples, "sync_tree", sync)
        assert write(folder, others)

    monkeypatch.setattr(examples, "sync_tree", synced)
    assert write(folder, mine) is (meanwhile != "the same")
    assert len(list(folder.glob("*.json"))) == (1 if meanwhile == "the same" else 2)
    assert opened(folder).examples("d/train").question.tolist() == ["is it red?"]
    list_contents(folder.parents[2], splits=["d/train"])
    assert list(verify(opened(folder))) == []


def test_runs_with_unlike_content_at_once_keep_each_its_columns(folder: Path) -> None:
    wanted = [columns([f"question {number}?"], answer=np.zeros(1, np.int32)) for number in range(8)]
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda found: write(folder, found), wanted))
    assert len(list(folder.glob("*.json"))) == len(list(folder.glob("*.h5"))) == 8
    asked = set()
    for path in folder.glob("*.json"):
        record = read_split_record(path)
        asked |= set(examples.read_split(folder, record).question_texts)
    assert asked == {f"question {number}?" for number in range(8)}
