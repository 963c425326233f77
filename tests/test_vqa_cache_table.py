"""Reading tables: order, doubles, lookups, the seal, damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import begin, commit, numbered_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa_cache.cache import open_cache
from vqa_cache.errors import CacheError, DamagedError, KeyNotFoundError, NewerFormatError
from vqa_cache.identity import add_spec
from vqa_cache.keys import pack_keys, text_key, unpack_keys
from vqa_cache.records.record import encode_record
from vqa_cache.records.shard import ShardRecord
from vqa_cache.records.table import SpecRecord, StoredSpec
from vqa_cache.spec import parse_spec
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify


def problems(folder: Path) -> list[str]:
    return list(verify(open_cache(folder / "cache")))


def rows_of(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start * 4, (start + count) * 4, dtype=np.float32).reshape(count, 4)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Nine rows in three shards; row n of key n."""
    made = begin(tmp_path / "cache")
    for start in (0, 4, 8):
        count = min(4, 9 - start)
        commit(made, numbered_keys(count, start), rows_of(count, start))
    return Table(made.folder)


def test_rows_stand_by_record_name_then_as_planned(table: Table) -> None:
    names = sorted(path.stem for path in (table.folder / "records").iterdir())
    assert [record.shard for record in table.shards] == names
    expected: list[int] = []
    for record in table.shards:
        start = {4: [0, 4], 1: [8]}[record.rows]
        numbers = [n for n in start if numbered_keys(1, n)[0] in unpack_keys(table.keys)]
        first = next(n for n in numbers if _begins(record, n))
        expected += range(first, first + record.rows)
    assert unpack_keys(table.keys) == [numbered_keys(1, n)[0] for n in expected]
    assert table.tensor()[:, 0].tolist() == [4 * n for n in expected]


def _begins(record: ShardRecord, number: int) -> bool:
    return record.planned[:16] == numbered_keys(1, number)[0]


def test_looking_up(table: Table) -> None:
    wanted = numbered_keys(9)[::-1] + numbered_keys(1, 77)
    index = table.row_index(pack_keys(wanted))
    assert index.dtype == np.int64
    assert index[-1] == -1
    assert table.tensor()[torch.from_numpy(index[:-1]), 0].tolist() == [
        4 * n for n in range(8, -1, -1)
    ]
    assert table.row_index(pack_keys([])).shape == (0,)
    np.testing.assert_array_equal(table.keys[index[:-1]], pack_keys(wanted[:-1]))


HALVES = st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\x80" + b"\0" * 7, b"\0" * 7 + b"\1"])
CROWDED = st.builds(lambda a, b: a + b, HALVES, HALVES | st.binary(min_size=8, max_size=8))


@settings(max_examples=25)
@given(st.lists(st.lists(CROWDED, max_size=5, unique=True), max_size=4), st.lists(CROWDED))
def test_lookups_agree_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[bytes]], wanted: list[bytes]
) -> None:
    made = begin(tmp_path_factory.mktemp("table") / "cache", row_shape=(1,), dtype="float32")
    number, committed = 0, {}
    for keys in shards:
        values = [[float(number + n)] for n in range(len(keys))]
        record = commit(made, keys, values)
        committed.setdefault(record.shard, dict(zip(keys, values, strict=True)))
        number += len(keys)
    expected: dict[bytes, list[float]] = {}
    for name in sorted(committed):  # of two records the smaller name serves a key
        for key, value in committed[name].items():
            expected.setdefault(key, value)
    fresh = Table(made.folder)
    assert unpack_keys(fresh.keys) == list(expected)
    assert fresh.tensor().tolist() == list(expected.values())
    index = fresh.row_index(pack_keys(wanted))
    order = list(expected)
    assert index.tolist() == [order.index(key) if key in expected else -1 for key in wanted]
    present = [key for key in wanted if key in expected]
    assert fresh.rows(present).tolist() == [expected[key] for key in present]


def test_a_key_in_two_records_comes_from_the_smaller_name(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache")
    keys = numbered_keys(6)
    one = commit(made, keys[:4], np.full((4, 4), 1))
    two = commit(made, keys[2:], np.full((4, 4), 2))
    winner = 1 if one.shard < two.shard else 2
    fresh = Table(made.folder)
    assert len(fresh) == 6
    assert fresh.rows(keys)[:, 0].tolist() == [1, 1, winner, winner, 2, 2]
    index = fresh.row_index(pack_keys(keys))
    assert fresh.tensor()[torch.from_numpy(index), 0].tolist() == [1, 1, winner, winner, 2, 2]


def test_one_shard_is_mapped_and_doubles_are_not_shown(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache")
    keys = numbered_keys(3)
    commit(made, [keys[0], keys[1], keys[0], keys[2]], rows_of(4))
    fresh = Table(made.folder)
    assert len(fresh) == len(fresh.tensor()) == 3
    assert fresh.tensor()[:, 0].tolist() == [0, 4, 12]


def test_rows_in_the_order_asked(table: Table) -> None:
    keys = numbered_keys(9)
    wanted = [keys[5], keys[0].hex(), keys[5], keys[8]]
    assert table.rows(wanted)[:, 0].tolist() == [20, 0, 20, 32]
    assert table[keys[3].hex()].tolist() == [12, 13, 14, 15]
    assert table[keys[3].hex().upper()].tolist() == [12, 13, 14, 15]
    assert table.rows([]).shape == (0, 4)
    assert table.rows(wanted).dtype == torch.float16


@pytest.mark.parametrize("key", ["", "cat.jpg", "ab" * 15, "ab" * 17, "zz" * 16, b"", b"x" * 15])
def test_what_is_no_image_key(table: Table, key: str | bytes) -> None:
    with pytest.raises(KeyNotFoundError, match=r"is not an image key; expected 32 hex digits"):
        table[key]


def test_a_missing_key_is_named_and_counted(table: Table) -> None:
    missing = numbered_keys(2, 50)
    with pytest.raises(KeyError) as caught:
        table.rows([*numbered_keys(3), missing[0].hex(), missing[1].hex()])
    told = str(caught.value)
    assert missing[0].hex() in told
    assert "(2 of 5 keys are missing)" in told
    assert table.name in told
    assert "\n" not in told
    assert isinstance(caught.value, CacheError)


def test_a_text_table(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache", modality="text")
    texts = ["yes", "caf\u00e9", "", "is it?"]
    commit(made, texts[:2], rows_of(2))
    commit(made, texts[2:], rows_of(2, 2))
    fresh = Table(made.folder)
    assert sorted(fresh.texts()) == sorted(texts)
    assert [text_key(text) for text in fresh.texts()] == unpack_keys(fresh.keys)
    assert fresh["cafe\u0301"].tolist() == fresh[text_key("caf\u00e9")].tolist() == [4, 5, 6, 7]
    assert fresh[""].tolist() == [8, 9, 10, 11]
    with pytest.raises(KeyNotFoundError, match=r"no row for 'no'.*expected a text"):
        fresh["no"]


def test_images_have_no_texts(table: Table) -> None:
    with pytest.raises(CacheError, match="holds images, it has no texts"):
        table.texts()


def test_failures_count_until_a_row_comes(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache")
    keys = numbered_keys(4)
    commit(made, keys, rows_of(4), failed={1: "truncated", 2: "missing"})
    assert Table(made.folder).failed == {keys[1]: "truncated", keys[2]: "missing"}
    commit(made, [keys[1], keys[2]], rows_of(2, 9), failed={1: "missing still"})
    fresh = Table(made.folder)
    assert set(fresh.failed) == {keys[2]}
    assert fresh[keys[1]].tolist() == [36, 37, 38, 39]


# ---------------------------------------------------------------- the seal


def test_a_seal_replaces_the_records(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.seal()
    sealed = Table(table.folder)
    reads: list[str] = []
    read = Path.read_bytes

    def noting(path: Path) -> bytes:
        reads.append(path.name)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", noting)
    assert len(sealed) == 9
    assert reads == ["seal.json"]
    assert sealed.tensor().tolist() == table.tensor().tolist()


def test_sealing_again_writes_nothing(table: Table) -> None:
    table.seal()
    path = table.folder / "seal.json"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    table.seal()
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_records_that_a_seal_does_not_list_are_taken_too(table: Table) -> None:
    table.seal()
    commit(table, numbered_keys(2, 20), rows_of(2, 20))
    fresh = Table(table.folder)
    assert len(fresh) == 11
    fresh.seal()
    assert len(json.loads((table.folder / "seal.json").read_bytes())["records"]) == 4


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{")])
def test_what_the_seal_lists_is_never_missed(
    table: Table, damage: Callable[[Path], object]
) -> None:
    """A record, a withdrawal and a spec that were deleted or damaged are served from the seal, and
    written again, byte for byte, by whoever writes next."""
    add_spec(table, parse_spec("timm:made-up:tap=pooled"))
    table.withdraw(numbered_keys(1), "asked")
    table.seal()
    before = {path: path.read_bytes() for path in table.folder.rglob("*.json")}
    for part in ("records", "withdrawn", "specs"):
        path = next((table.folder / part).iterdir())
        damage(path)
        fresh = Table(table.folder)
        assert fresh.tensor().tolist() == table.tensor().tolist()
        assert set(fresh.withdrawn) == set(numbered_keys(1))
        assert len(fresh.specs()) == 1
    fresh.restore_records()
    assert {path: path.read_bytes() for path in table.folder.rglob("*.json")} == before


def test_a_withdrawal_ends_when_the_seal_is_deleted_as_well(table: Table) -> None:
    table.withdraw(numbered_keys(1), "asked")
    next((table.folder / "withdrawn").iterdir()).unlink()
    assert len(Table(table.folder)) == 8
    (table.folder / "seal.json").unlink()
    assert len(Table(table.folder)) == 9


def test_a_seal_of_another_table_is_not_used(tmp_path: Path) -> None:
    one, other = (begin(tmp_path / "cache", tap=tap) for tap in ("one", "other"))
    for table in (one, other):
        commit(table, numbered_keys(3), rows_of(3))
        table.seal()
    (one.folder / "seal.json").write_bytes((other.folder / "seal.json").read_bytes())
    assert Table(one.folder).shards[0].table == one.id
    assert any("seal.json: its table is not that of" in line for line in problems(tmp_path))


def test_a_table_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    one, other = (begin(tmp_path / "cache", tap=tap) for tap in ("one", "other"))
    foreign = {name: (other.folder / name).read_bytes() for name in ("table.json", "seal.json")}
    (one.folder / "table.json").write_bytes(foreign["table.json"])
    assert Table(one.folder).id == one.id  # as its seal says
    (one.folder / "seal.json").write_bytes(foreign["seal.json"])
    with pytest.raises(
        DamagedError, match=r"table\.json: belongs to table image/timm\.made-up/other"
    ):
        Table(one.folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":"vqa-cache/seal"}'])
def test_a_damaged_seal_is_not_used(table: Table, content: bytes) -> None:
    table.seal()
    path = table.folder / "seal.json"
    good = path.read_bytes()
    path.write_bytes(content)
    fresh = Table(table.folder)
    assert len(fresh) == 9
    fresh.seal()
    assert path.read_bytes() == good


def test_a_seal_of_a_newer_version_is_only_an_index(table: Table) -> None:
    table.seal()
    path = table.folder / "seal.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1}', b'"version":3}'))
    assert len(Table(table.folder)) == 9


def test_sealing_shows_what_came_since(table: Table) -> None:
    assert len(table) == 9
    commit(table, numbered_keys(2, 20), rows_of(2, 20))
    table.seal()
    assert len(table) == 11
    assert table.row_index(pack_keys(numbered_keys(1, 21)))[0] >= 0


# ---------------------------------------------------------------- damage


def test_an_invalid_record_counts_as_absent(table: Table) -> None:
    path = max((table.folder / "records").iterdir(), key=lambda one: one.stat().st_size)
    path.write_bytes(path.read_bytes()[:-9])
    assert len(Table(table.folder)) == 5


def test_a_newer_record_is_an_error(table: Table) -> None:
    path = next((table.folder / "records").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"version":1}', b'"version":3}'))
    with pytest.raises(NewerFormatError, match="version 3, this program reads up to 2"):
        len(Table(table.folder))


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_lost_shard_names_the_repair(tmp_path: Path, container: str, damage: str) -> None:
    made = begin(tmp_path / "cache", container=container)
    record = commit(made, numbered_keys(3), rows_of(3))
    path = made.folder / record.path("rows")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    fresh = Table(made.folder)
    assert len(fresh) == 3
    for read in (fresh.tensor, lambda: fresh.rows(numbered_keys(1))):
        with pytest.raises(DamagedError) as caught:
            read()
        assert str(path) in str(caught.value)
        assert "missing" in str(caught.value) or "expected" in str(caught.value)
        assert "--repair" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_unfinished_names_are_ignored(table: Table) -> None:
    record = next((table.folder / "records").glob("*.json"))
    spec = encode_record(SpecRecord(StoredSpec("timm", "one", None, "a", {})))
    for folder, name, content in (
        ("records", ".tmp-host-1-x.json", record.read_bytes()),
        ("records", ".tmp-host-2-x.json", b"{"),
        ("shards", ".tmp-host-1-x.h5", b""),
        ("specs", ".tmp-host-1-x.json", b'{"spec"'),
        ("specs", ".tmp-host-2-x.json", spec),
        (".", ".tmp-host-1-seal.json", b"{"),
    ):
        (table.folder / folder).mkdir(exist_ok=True)
        (table.folder / folder / name).write_bytes(content)
    fresh = Table(table.folder)
    assert len(fresh.shards) == 3
    assert len(fresh) == 9
    fresh.seal()
    assert fresh.specs() == []


def test_a_damaged_spec_counts_as_absent(table: Table) -> None:
    for text in ("timm:one:tap=a", "timm:two:tap=a"):
        add_spec(table, parse_spec(text))
    path = next(
        path for path in (table.folder / "specs").iterdir() if b'"model":"one"' in path.read_bytes()
    )
    path.write_bytes(path.read_bytes()[:40])
    assert [spec.model for spec in table.specs()] == ["two"]
    add_spec(table, parse_spec("timm:one:tap=a"))
    assert sorted(spec.model for spec in table.specs()) == ["one", "two"]


def test_a_table_tells_its_size(table: Table) -> None:
    assert repr(table) == f"<Table {table.name}: 9 rows [4]>"
    assert table.row_bytes == 8
