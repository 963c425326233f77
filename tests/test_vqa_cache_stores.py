"""Copies to and from an object store: a real S3 server on loopback, started here."""

from __future__ import annotations

import importlib.util
import itertools
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import begin, commit, numbered_keys

import vqa_cache
from benchmarks.faults.scenario import kept
from vqa_cache.__main__ import main
from vqa_cache.cache import create_cache
from vqa_cache.tools.stores import Folder, Store, mirror
from vqa_cache.tools.verify import verify
from vqa_cache.withdrawals import withdraw

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("obstore") is None or importlib.util.find_spec("moto") is None,
    reason="obstore or moto is not installed",
)
SECONDS = 60.0
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of moto's S3 server in a process of its own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
            break
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield address
    process.kill()
    process.wait()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a cache to be in a bucket that is empty."""
    settings = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    name = f"bucket{next(_numbers)}"
    put = urllib.request.Request(f"{server}/{name}", method="PUT")
    urllib.request.urlopen(put, timeout=10).close()
    return f"s3://{name}/caches/one"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two tables, one of them in Zarr, a split, a withdrawal, a thumbnail."""
    root = tmp_path / "cache"
    keys = numbered_keys(6)
    for container, model in (("hdf5", "one"), ("zarr", "two")):
        table = begin(root, container=container, model=model)
        commit(table, keys[:4], [[n, 1, 2, 3] for n in range(4)])
        commit(table, keys[4:], [[n, 1, 2, 3] for n in range(2)])
        table.seal()
    withdraw(table.folder, table.id, keys[:1], "by request")
    (root / "thumbnails").mkdir()
    (root / "thumbnails" / f"{keys[1].hex()}.jpg").write_bytes(b"a picture")
    (root / "memo.sqlite").write_bytes(b"nothing for others")
    (root / ".tmp-left").write_bytes(b"unfinished")
    return root


def copy(*words: object) -> Any:
    return CliRunner().invoke(main, ["copy", *map(str, words), "--json"])


def test_there_and_back_is_the_same_cache(cache: Path, bucket: str, tmp_path: Path) -> None:
    there = copy(cache, bucket)
    assert there.exit_code == 0, there.output
    back = copy(bucket, tmp_path / "back")
    assert back.exit_code == 0, back.output
    assert json.loads(back.stdout)["copied"] == json.loads(there.stdout)["copied"] > 10
    found = kept(tmp_path / "back")
    assert found == {name: one for name, one in kept(cache).items() if not name.startswith(".tmp")}
    assert not list((tmp_path / "back").rglob(".tmp-*"))
    opened = vqa_cache.open(tmp_path / "back")
    assert [len(table) for table in opened.tables.values()] == [6, 5]
    again = copy(cache, bucket)
    assert json.loads(again.stdout)["copied"] == 0


def test_rows_go_first_and_the_seals_last(cache: Path, bucket: str) -> None:
    written: list[str] = []

    class Watched(Store):
        def write(self, path: str, source: Path) -> None:
            written.append(path)
            super().write(path, source)

    mirror(Folder(cache), Watched(bucket))
    records = [n for n, path in enumerate(written) if "/records/" in path]
    rows = [n for n, path in enumerate(written) if "/shards/" in path]
    seals = [n for n, path in enumerate(written) if path.endswith("seal.json")]
    withdrawals = [n for n, path in enumerate(written) if "/withdrawn/" in path]
    assert max(rows) < min(withdrawals) < min(records)  # else its rows would be served a while
    assert max(records) < min(seals)
    assert written[-1] == "CACHE.json"


def test_an_interrupted_copy_is_no_cache_and_goes_on(
    cache: Path, bucket: str, tmp_path: Path
) -> None:
    class Breaking(Store):
        left = 7

        def write(self, path: str, source: Path) -> None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            super().write(path, source)

    with pytest.raises(KeyboardInterrupt):
        mirror(Folder(cache), Breaking(bucket))
    early = copy(bucket, tmp_path / "early")
    assert early.exit_code == 1
    assert f"error: {bucket}: no cache here (no CACHE.json)" in early.stderr
    done = json.loads(copy(cache, bucket).stdout)
    assert done["present"] == 7
    assert copy(bucket, tmp_path / "back").exit_code == 0
    told = [
        [line.replace(str(one), "") for line in verify(vqa_cache.open(one))]
        for one in (tmp_path / "back", cache)
    ]
    assert told[0] == told[1]


def test_what_is_damaged_on_either_side_is_told_or_replaced(
    cache: Path, bucket: str, tmp_path: Path
) -> None:
    assert copy(cache, bucket).exit_code == 0
    store = Store(bucket)
    path = next(path for path in store.sizes() if path.endswith(".h5"))
    bad = tmp_path / "bad"
    content = bytearray(store.read(path))
    content[-3] ^= 1
    bad.write_bytes(content)
    store.write(path, bad)
    told = copy(bucket, tmp_path / "back")
    assert told.exit_code == 1
    assert f"error: {bucket}/{path}: its bytes differ from the record's digest" in told.stderr
    assert not (tmp_path / "back" / "CACHE.json").exists()
    assert json.loads(copy(cache, bucket).stdout)["copied"] == 1  # mended by the sound one
    assert copy(bucket, tmp_path / "back").exit_code == 0


def test_another_cache_at_the_target_is_refused(cache: Path, bucket: str, tmp_path: Path) -> None:
    assert copy(cache, bucket).exit_code == 0
    other = tmp_path / "other"
    table = begin(other, model="one", options={})
    record = json.loads((table.folder / "table.json").read_bytes())
    from dataclasses import replace

    from vqa_cache.records.record import encode_record

    assert record["rows_per_shard"] != 8
    (table.folder / "table.json").write_bytes(
        encode_record(replace(table.record, rows_per_shard=8))
    )
    told = copy(other, bucket)
    assert told.exit_code == 1
    assert "the source has another one (it differs in rows_per_shard)" in told.stderr


def test_one_table_of_several(cache: Path, bucket: str, tmp_path: Path) -> None:
    assert copy(cache, bucket, "--tables", "two").exit_code == 0
    assert copy(bucket, tmp_path / "back").exit_code == 0
    [table] = vqa_cache.open(tmp_path / "back").tables.values()
    assert "two" in table.name
    told = copy(cache, bucket, "--tables", "three")
    assert told.exit_code == 1
    assert "0 tables named 'three'; the cache has: image/timm.one" in told.stderr


def test_a_cache_in_a_store_is_opened_through_a_local_copy(
    cache: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQA_CACHE_HOME", str(tmp_path / "home"))
    mirror(Folder(cache), Store(bucket))
    opened = vqa_cache.open(bucket)
    assert opened.path.is_relative_to(tmp_path / "home")
    table = opened.tables["one"]
    assert table[numbered_keys(6)[3]].tolist() == [3, 1, 2, 3]
    more = begin(cache, container="hdf5", model="three")
    commit(more, numbered_keys(2), [[5, 5, 5, 5]] * 2)
    mirror(Folder(cache), Store(bucket))
    assert len(vqa_cache.open(bucket).tables["three"]) == 2  # what is new is fetched


def test_a_store_out_of_reach_is_one_line(cache: Path, bucket: str) -> None:
    told = copy(cache, bucket.replace("s3://bucket", "s3://missing"))
    assert told.exit_code == 1
    [line] = told.stderr.strip().splitlines()
    assert line.startswith("error: s3://missing")
    assert "see that the bucket exists, and credentials" in line


def test_a_file_url_is_a_folder(cache: Path, tmp_path: Path) -> None:
    done = copy(f"file://{cache}", f"file://{tmp_path / 'back'}")
    assert done.exit_code == 0, done.output
    assert len(vqa_cache.open(tmp_path / "back").tables) == 2


def test_names_in_a_store_cannot_leave_the_folder(cache: Path, bucket: str, tmp_path: Path) -> None:
    mirror(Folder(cache), Store(bucket))
    picture = tmp_path / "picture"
    picture.write_bytes(b"x")
    store = Store(bucket)
    for name in ("thumbnails/..%2F..%2Fout.jpg", "elsewhere/file", f"tables/{'a' * 32}.h5"):
        store.write(name, picture)
    assert copy(bucket, tmp_path / "deep" / "back").exit_code == 0
    assert set(kept(tmp_path / "deep" / "back")) == {
        name for name in kept(cache) if not name.startswith(".tmp")
    }
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["back"]


def test_a_link_at_the_target_is_not_followed(cache: Path, bucket: str, tmp_path: Path) -> None:
    mirror(Folder(cache), Store(bucket))
    (tmp_path / "documents").mkdir()
    create_cache(tmp_path / "back")
    (tmp_path / "back" / "thumbnails").symlink_to(tmp_path / "documents")
    told = copy(bucket, tmp_path / "back")
    assert told.exit_code == 1
    assert "thumbnails: is a link, expected a folder of the cache; remove it" in told.stderr
    assert list((tmp_path / "documents").iterdir()) == []
