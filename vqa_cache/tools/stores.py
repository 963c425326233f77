"""Caches in object stores: copies there and back, file by file.

A file of rows, columns or a picture goes before the record that names it, and the seals and
CACHE.json go last. So a copy that was interrupted is no part of a cache yet, and the same command
goes on. What is there already is read and compared, and not sent again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from vqa_cache.arrays import file_digest
from vqa_cache.errors import (
    CacheError,
    DamagedError,
    NotACacheError,
    RefusedError,
    TableNotFoundError,
)
from vqa_cache.records.names import is_path
from vqa_cache.records.record import CacheRecord, Record, parse_record
from vqa_cache.records.shard import ShardRecord, WithdrawalRecord
from vqa_cache.records.split import SplitRecord
from vqa_cache.records.stored import Stored
from vqa_cache.records.table import SpecRecord, TableRecord
from vqa_cache.remedy import remedy
from vqa_cache.system.durable import Workspace, make_folder, publish

SCHEMES = ("s3", "gs", "az")
_CACHE = "CACHE.json"
_TABLE = r"tables/[^/]+/[^/]+/[^/]+/[^/]+"
_TABLES = re.compile(f"{_TABLE}/")
_SPLIT = r"examples/[^/]+/[^/]+"
# what a cache is made of, in the order in which it is copied: what tells of others comes after them
_ROWS = re.compile(rf"{_TABLE}/shards/[0-9a-f]{{32}}(\.h5|\.zarr/.+)|{_SPLIT}/\d+\.h5")
_PICTURES = re.compile(r"thumbnails/[0-9a-f]{32}\.jpg")
_RECORDS: tuple[tuple[re.Pattern[str], type[Record]], ...] = (
    (re.compile(rf"{_TABLE}/table\.json"), TableRecord),
    (re.compile(rf"{_TABLE}/specs/[0-9a-f]{{16}}\.json"), SpecRecord),
    (re.compile(rf"{_TABLE}/withdrawn/[0-9a-f]{{32}}\.json"), WithdrawalRecord),
    (re.compile(rf"{_TABLE}/records/[0-9a-f]{{32}}\.json"), ShardRecord),
    (re.compile(rf"{_SPLIT}/\d+\.json"), SplitRecord),
)
_SEALS = re.compile(rf"{_TABLE}/seal\.json|seal\.json")
_ADOPTED = {"spec", "environment", "digest"}  # of a table's record: may differ between two writers
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Mirrored:
    """How many files were copied, and how many were there."""

    copied: int
    present: int


def is_store(place: str) -> bool:
    """Whether a cache's name is a URL of an object store."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def local_path(place: str) -> str:
    """A `file://` URL as the path that it is; anything else as it was."""
    return place.removeprefix("file://")


class Place(ABC):
    """Where a cache lies.

    Attributes:
        name: for people.
    """

    name: str

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Every file of the cache: its path -> bytes."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """A small file."""

    @abstractmethod
    def file(self, path: str) -> Any:
        """A context manager that gives the file's bytes as a local path."""

    @abstractmethod
    def write(self, path: str, source: Path) -> None:
        """Put a local file there, whole or not at all."""


class Folder(Place):
    """A cache on this machine."""

    def __init__(self, root: Path) -> None:
        self.name, self.root = str(root), root

    def sizes(self) -> dict[str, int]:
        """See `Place`; links are not followed."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            folders[:] = [one for one in folders if is_path(one)]
            for name in files:
                path = Path(folder, name)
                if is_path(name) and not path.is_symlink():
                    found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    def read(self, path: str) -> bytes:
        """See `Place`."""
        return (self.root / path).read_bytes()

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """See `Place`."""
        yield self.root / path

    def write(self, path: str, source: Path) -> None:
        """See `Place`; durable when it returns."""
        final = self.root / path
        above = [self.root / part for part in Path(path).parents if part.parts]
        if link := next((one for one in above if one.is_symlink()), None):
            raise RefusedError(f"{link}: is a link, expected a folder of the cache; remove it")
        exists = next(folder for folder in final.absolute().parents if folder.is_dir())
        make_folder(final.parent, self.root if self.root.is_dir() else exists)
        with Workspace(final) as temporary:
            shutil.copyfile(source, temporary)
            publish(temporary, final)


class Store(Place):
    """A cache in an object store; credentials and endpoint are those of the environment."""

    def __init__(self, url: str) -> None:
        """Raises CacheError where obstore is not installed or the URL is none."""
        self.name = url.rstrip("/")
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise CacheError(
                f"{url}: object stores need the package obstore: pip install 'vqa-cache[remote]'"
            ) from error
        self._obstore, self._failures = obstore, obstore.exceptions.BaseError
        with self._told():
            self._store = from_url(self.name)

    def sizes(self) -> dict[str, int]:
        """See `Place`."""
        with self._told():
            listed = self._obstore.list(self._store)
            return {item["path"]: item["size"] for chunk in listed for item in chunk}

    def read(self, path: str) -> bytes:
        """See `Place`."""
        with self._told(path):
            return bytes(self._obstore.get(self._store, path).bytes())

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """See `Place`."""
        with TemporaryDirectory() as folder:
            fetched = Path(folder, "fetched")
            with self._told(path), fetched.open("wb") as file:
                for piece in self._obstore.get(self._store, path).stream():
                    file.write(piece)
            yield fetched

    def write(self, path: str, source: Path) -> None:
        """See `Place`."""
        with self._told(path):
            self._obstore.put(self._store, path, source)

    @contextmanager
    def _told(self, path: str = "") -> Iterator[None]:
        """What the store says against something, in one line."""
        try:
            yield
        except (self._failures, OSError) as error:
            where = f"{self.name}/{path}" if path else self.name
            told = " ".join(str(error).split())
            raise CacheError(
                f"{where}: {told[:300]}; see that the bucket exists, and credentials and endpoint "
                "in the environment"
            ) from error


def place_of(name: str) -> Place:
    """A folder or a store, by its name."""
    return Store(name) if is_store(name) else Folder(Path(local_path(name)))


def mirror(source: Place, target: Place, tables: Sequence[str] = ()) -> Mirrored:
    """Copy a cache into another place, every byte checked against its record after it was written.

    Args:
        tables: names of the tables to copy, or parts of names that fit one alone; all otherwise.

    Raises:
        NotACacheError: there is none at the source, or something else at the target.
        TableNotFoundError: a name fits no table, or several.
        DamagedError: a record or a file of the source is damaged; what came before it is copied.
        RefusedError: the target has another record under one of the names.
        CacheError: a store is out of reach.
    """
    sizes, there = source.sizes(), target.sizes()
    if _CACHE not in sizes:
        raise NotACacheError(f"{source.name}: no cache here (no {_CACHE})")
    if there and _CACHE not in there and not all(map(_known, there)):
        raise NotACacheError(
            f"{target.name}: holds other things; expected a cache or an empty place"
        )
    parse_record(source.read(_CACHE), CacheRecord, f"{source.name}/{_CACHE}")
    chosen = _chosen(source, sorted(sizes), tables)
    records, digests = _read_records(source, chosen)
    _check_target(target, there, records)
    pictures = [path for path in chosen if _PICTURES.fullmatch(path)]
    seals = [path for path in chosen if _SEALS.fullmatch(path)]
    copied = present = 0
    for path in (*digests, *pictures, *records, *seals, _CACHE):
        if _copy(source, target, path, there.get(path), digests.get(path)):
            copied += 1
        else:
            present += 1
    return Mirrored(copied, present)


def _known(path: str) -> bool:
    """Whether a path is that of a cache's file."""
    named = [pattern for pattern, _ in _RECORDS] + [_ROWS, _PICTURES, _SEALS]
    return is_path(path) and any(pattern.fullmatch(path) for pattern in named)


def _chosen(source: Place, paths: list[str], tables: Sequence[str]) -> list[str]:
    """The paths that are of some tables, or of none."""
    names = sorted({"/".join(path.split("/")[1:5]) for path in paths if _TABLES.match(path)})
    left_out = set(names) if tables else set()
    for table in tables:
        found = [table] if table in names else [name for name in names if table in name]
        if len(found) != 1:
            raise TableNotFoundError(
                f"{source.name}: {len(found)} tables named {table!r}; "
                f"the cache has: {', '.join(names) or 'none'}"
            )
        left_out.discard(found[0])
    return [path for path in paths if "/".join(path.split("/")[1:5]) not in left_out]


def _read_records(
    source: Place, paths: list[str]
) -> tuple[dict[str, Record], dict[str, tuple[int, str]]]:
    """The records among some paths, in the order in which they are copied, and size and digest of
    every file that one of them names."""
    found: dict[str, Record] = {}
    digests: dict[str, tuple[int, str]] = {}
    for pattern, kind in _RECORDS:
        for path in paths:
            if not pattern.fullmatch(path) or not is_path(path):
                continue
            record = parse_record(source.read(path), kind, f"{source.name}/{path}")
            found[path] = record
            if isinstance(record, Stored):
                above = Path(path).parent
                folder = above.parent if isinstance(record, ShardRecord) else above
                for file in record.files:
                    digests[(folder / file.path).as_posix()] = (file.bytes, file.xxh3_128)
    return found, digests


def _check_target(target: Place, there: dict[str, int], records: dict[str, Record]) -> None:
    """Raise RefusedError where the target has another valid record under a name."""
    for path, record in records.items():
        if path not in there:
            continue
        try:
            other = parse_record(target.read(path), type(record), f"{target.name}/{path}")
        except DamagedError:
            continue  # it is replaced
        here, known = record.as_json(), other.as_json()
        differing = sorted(
            field
            for field in here.keys() | known.keys()
            if here.get(field) != known.get(field) and field not in _ADOPTED
        )
        if differing:
            raise RefusedError(
                f"{target.name}/{path}: the source has another one (it differs in "
                f"{', '.join(differing)}); copy into another place"
            )


def _copy(
    source: Place, target: Place, path: str, there: int | None, expected: tuple[int, str] | None
) -> bool:
    """Copy one file, unless the target has its bytes."""
    with source.file(path) as file:
        size, digest = file.stat().st_size, file_digest(file)
        if expected is not None and (size, digest) != expected:
            raise DamagedError(
                f"{source.name}/{path}: its bytes differ from the record's digest; mend it first: "
                f"{remedy(Path(source.name, path))}"
            )
        if there == size and _digest(target, path) == digest:
            return False
        target.write(path, file)
    if _digest(target, path) != digest:
        raise DamagedError(f"{target.name}/{path}: differs from {source.name}/{path} when read")
    return True


def _digest(place: Place, path: str) -> str:
    with place.file(path) as file:
        return file_digest(file)


def fetched(url: str) -> Path:
    """The folder of a cache that a URL names; of one in a store the local copy, what it lacks being
    downloaded first: below $VQA_CACHE_HOME, otherwise ~/.cache/vqa-cache."""
    if not is_store(url):
        return Path(local_path(url))
    home = Path(os.environ.get("VQA_CACHE_HOME") or Path.home() / ".cache" / "vqa-cache")
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
    folder = home / f"{url.rstrip('/').rpartition('/')[2]}-{digest}"
    mirror(Store(url), Folder(folder))
    return folder
