"""Texts as arrays, bytes at their places, block checksums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from vqa_cache import arrays
from vqa_cache.containers import ArrayLayout, Extent
from vqa_cache.errors import DamagedError
from vqa_cache.reading import read_array
from vqa_cache.records.stored import Stored, StoredFile

BLOCK = 4 * 1024 * 1024


@given(st.lists(st.text()))
def test_texts_survive(texts: list[str]) -> None:
    columns = arrays.text_arrays("name", texts)
    joined, offsets = columns["name_bytes"], columns["name_offsets"]
    assert joined.dtype == np.uint8
    assert offsets.dtype == np.int64
    assert len(offsets) == len(texts) + 1
    assert offsets[-1] == len(joined) == sum(len(text.encode()) for text in texts)
    assert arrays.read_texts(joined, offsets) == texts
    lazy = arrays.Texts(joined, offsets)
    assert lazy == texts
    assert list(lazy) == texts
    assert lazy[1:] == texts[1:]
    assert lazy[-1:] == texts[-1:]
    assert lazy != [*texts, "more"]
    with pytest.raises(IndexError):
        lazy[len(texts)]


@pytest.fixture
def described(tmp_path: Path) -> tuple[Stored, np.ndarray]:
    """A file of one array of 2.5 blocks at an odd offset, and its record."""
    data = np.random.default_rng(0).integers(0, 2**16, 5 * BLOCK // 4, dtype=np.uint16)
    path = tmp_path / "file"
    path.write_bytes(b"h" * 100 + b"\0" * data.nbytes + b"tail")
    arrays.fill(path, 100, data)
    layout = ArrayLayout("rows", "uint16", data.shape, ("row",))
    record = arrays.describe(path, "file", [layout], {"rows": Extent("", 100)})
    return record, data


def test_a_record_says_where_the_bytes_are(
    tmp_path: Path, described: tuple[Stored, np.ndarray]
) -> None:
    record, data = described
    content = (tmp_path / "file").read_bytes()
    assert content[:100] == b"h" * 100
    assert content[-4:] == b"tail"
    array = record.arrays["rows"]
    assert content[array.offset : array.offset + array.bytes] == data.tobytes()
    assert list(array.blocks) == [
        xxhash.xxh3_64_hexdigest(data.tobytes()[start : start + BLOCK])
        for start in range(0, data.nbytes, BLOCK)
    ]
    assert len(array.blocks) == 3
    assert record.files == (StoredFile("file", len(content), xxhash.xxh3_128_hexdigest(content)),)
    np.testing.assert_array_equal(read_array(tmp_path, record, "rows"), data)


@pytest.mark.parametrize("place", [100, 100 + BLOCK - 1, 100 + BLOCK, 100 + 5 * BLOCK // 2 - 1])
def test_one_bit_in_any_block_is_found(
    tmp_path: Path, described: tuple[Stored, np.ndarray], place: int
) -> None:
    record, _ = described
    with open(tmp_path / "file", "r+b") as file:
        file.seek(place)
        bit = file.read(1)[0] ^ 1
        file.seek(place)
        file.write(bytes([bit]))
    with pytest.raises(
        DamagedError, match=r"file: bytes .*, of array 'rows', differ from their checksum"
    ):
        read_array(tmp_path, record, "rows")
    [problem] = arrays.check_files(tmp_path, record, content=True)
    assert problem == f"{tmp_path / 'file'}: its bytes differ from the record's digest"
    assert list(arrays.check_files(tmp_path, record, content=False)) == []


def test_a_short_and_a_missing_file(tmp_path: Path, described: tuple[Stored, np.ndarray]) -> None:
    record, _ = described
    path = tmp_path / "file"
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size - 5)
    assert list(arrays.check_files(tmp_path, record, content=False)) == [
        f"{path}: {size - 5} bytes, expected {size}"
    ]
    with pytest.raises(DamagedError, match=rf"{size - 5} bytes, expected {size}; mend it"):
        read_array(tmp_path, record, "rows")
    path.unlink()
    assert list(arrays.check_files(tmp_path, record, content=False)) == [f"{path}: missing"]
    with pytest.raises(DamagedError, match="file: missing; mend it: the command of stage 1"):
        read_array(tmp_path, record, "rows")


def test_filling_needs_no_copy_in_order(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"." * 12)
    arrays.fill(path, 2, np.arange(6, dtype=np.uint8).reshape(2, 3).T)  # not contiguous
    arrays.fill(path, 9, b"xyz")
    assert path.read_bytes() == b"..\x00\x03\x01\x04\x02\x05.xyz"
