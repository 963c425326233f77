"""Rows that other programs made become a table, with provenance "imported" in its identity."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vqa_cache.cache import Cache
from vqa_cache.containers import Container
from vqa_cache.dtypes import StoredType, raw_rows
from vqa_cache.errors import CacheError
from vqa_cache.identity import add_spec, begin_table
from vqa_cache.keys import image_key, nfc, text_key
from vqa_cache.quantised import to_stored, widened
from vqa_cache.records.names import is_path
from vqa_cache.records.table import BatchPlan, Canaries, Identity, Modality, TableSettings
from vqa_cache.shard import ROWS_PER_SHARD, ShardWriter, shard_name
from vqa_cache.spec import EncoderSpec
from vqa_cache.table import Table
from vqa_cache.tools.foreign import FORMATS, Found, Rows, read_ids

FAMILY = "imported"
KEY_BY = ("image", "text", "key")
_NAME = re.compile(r"[\w.+/-]+")
_LAST_NUMBER = re.compile(r"(\d+)\D*$")
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Item:
    """One row to import: its key, its text in a text table, and where it is read."""

    key: bytes
    text: str
    rows: Rows
    number: int

    def read(self) -> npt.NDArray[Any]:
        """The row, C-contiguous."""
        row = np.asarray(self.rows.read(self.number))
        return row if row.flags.c_contiguous else np.ascontiguousarray(row)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.rows.where}: row {self.number} ({self.rows.ids[self.number]!r})"


@dataclass(frozen=True)
class Contents:
    """What a first reading of all rows tells.

    Attributes:
        row_shape: shape of a row, or of a token.
        ragged: whether rows differ in their number of tokens.
    """

    digest: str
    row_shape: tuple[int, ...]
    ragged: bool


def open_sources(
    kind: str, paths: Sequence[str], ids: Sequence[str], column: str | None
) -> dict[str, list[Rows]]:
    """Arrays by tap, each of one or more files.

    Args:
        kind: one of FORMATS.
        ids: files that name the rows, none or one for each path.

    Raises:
        CacheError: a file cannot be read, or the files hold other arrays than the first.
    """
    if ids and len(ids) != len(paths):
        raise CacheError(f"{len(ids)} --ids for {len(paths)} files; give one for each, in order")
    found: dict[str, list[Rows]] = {}
    for number, path in enumerate(paths):
        named = read_ids(Path(ids[number]), column) if ids else None
        opened: Found = FORMATS[kind](Path(path), named)
        if found and found.keys() != opened.keys():
            raise CacheError(f"{path}: holds {', '.join(opened)}, {paths[0]}: {', '.join(found)}")
        for tap, rows in opened.items():
            found.setdefault(tap, []).append(rows)
    return found


def key_function(key_by: str, images: str | None) -> Callable[[str], tuple[bytes, str]]:
    """From an id to a key and, for texts, the text.

    Args:
        key_by: "text": the id is the text; "key": it is the key; "image": it names a file.
        images: for "image", the folder. An id is a path in it, a file's name without its
            ending, or the last number in the name (42 for COCO_val2014_000000000042.jpg).

    Raises (the function as well):
        CacheError: the folder is missing; an id names no file, or several, or is no key.
    """
    if key_by == "text":
        return lambda name: (text_key(name), nfc(name))
    if key_by == "key":
        return lambda name: (_parsed_key(name), "")
    if images is None:
        raise CacheError(
            "--key-by image needs --images FOLDER, the folder of the images that the ids name; "
            "where ids are texts or keys, say --key-by text or --key-by key"
        )
    if not Path(images).is_dir():
        raise CacheError(f"--images {images}: no such folder; expected that of the images")
    named = _files_by_name(Path(images))

    @functools.cache  # features and boxes ask alike, and a key means reading the image
    def key_of(name: str) -> tuple[bytes, str]:
        if not is_path(name):
            raise CacheError(f"id {name[:80]!r}: is no path under {images}, expected one inside it")
        direct = Path(images, name)
        # the whole name first: of "img.v2" the stem is "img", perhaps another image
        found = {direct} if direct.is_file() else named.get(name, named.get(Path(name).stem, set()))
        if len(found) != 1:
            what = f"{len(found)} files" if found else "no file"
            raise CacheError(f"id {name!r}: {what} of this name under {images}")
        return image_key(next(iter(found))), ""

    return key_of


def _parsed_key(name: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", name):
        raise CacheError(f"id {name!r} is no key; expected 32 hex digits")
    return bytes.fromhex(name)


def _files_by_name(folder: Path) -> dict[str, set[Path]]:
    """Files below a folder by name without ending, and by the last number in it."""
    named: dict[str, set[Path]] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            number = _LAST_NUMBER.search(path.stem)
            for known in {path.stem, *([str(int(number[1]))] if number else [])}:
                named.setdefault(known, set()).add(path)
    return named


def collect(
    sources: Iterable[Rows], key_of: Callable[[str], tuple[bytes, str]], *, skip: bool
) -> tuple[list[Item], list[str]]:
    """The rows of all files with their keys, the first of each key alone, and what was left out.

    Raises:
        CacheError: an id has no key, without `skip`.
    """
    items: dict[bytes, Item] = {}
    left_out = []
    for rows in sources:
        for number, name in enumerate(rows.ids):
            try:
                key, text = key_of(name)
            except (CacheError, OSError) as error:
                if not skip:
                    raise CacheError(
                        f"{rows.where}: {error}; to leave such rows out: --on-error skip"
                    ) from error
                left_out.append(str(error))
                continue
            items.setdefault(key, Item(key, text, rows, number))
    if not items:
        raise CacheError("no row to import; expected at least one whose key is known")
    return list(items.values()), left_out


def examine(items: Sequence[Item], dtype: str) -> Contents:
    """Read every row once: the digest of all, and their common shape.

    Raises:
        CacheError: rows differ in more than their number of tokens, are no numbers, hold no value,
            or cannot be stored as `dtype`.
    """
    digest = hashlib.sha256()
    first = items[0].read()
    if not first.ndim and first.dtype.kind in "fiu":
        raise CacheError(f"{items[0].where}: is one number, expected a row of several")
    ragged = False
    for item in items:
        row = item.read()
        same = row.shape == first.shape
        if row.dtype.kind not in "fiu" or not (
            same or (row.ndim > 1 and row.shape[1:] == first.shape[1:])
        ):
            raise CacheError(
                f"{item.where}: {row.dtype}{list(row.shape)}, expected numbers of shape "
                f"{list(first.shape)} or with another first dimension alone"
            )
        _stored(item, row, dtype)
        ragged |= not same
        head = f"{row.dtype.str}{list(row.shape)}".encode()
        digest.update(item.key + len(head).to_bytes(8, "little") + head)
        digest.update(row.data)
    shape = first.shape[1:] if ragged else first.shape
    if 0 in shape:
        raise CacheError(f"{items[0].where}: {list(first.shape)} holds no value")
    return Contents(digest.hexdigest(), shape, ragged)


def import_table(
    cache: Cache,
    items: Sequence[Item],
    *,
    encoder: str,
    tap: str,
    modality: Modality,
    dtype: StoredType,
    container: Container,
) -> Table:
    """Write rows as a table; what an interrupted import committed is kept.

    Args:
        encoder: the stated name of what made the rows.
        dtype: stored type.

    Raises:
        CacheError: a row cannot be stored in this type, or the name cannot be part of a spec.
    """
    if not _NAME.fullmatch(encoder):
        raise CacheError(f"--encoder {encoder!r}: expected letters, digits and . _ + / - alone")
    contents = examine(items, dtype)
    identity = Identity(
        modality=modality, library=FAMILY, model=encoder, revision=None,
        weights=f"sha256:{contents.digest}", architecture={},
        preprocessing={"provenance": "imported"}, tap=tap, pooling="none", dtype=dtype,
    )  # fmt: skip
    settings = TableSettings(
        row_shape=contents.row_shape, ragged=contents.ragged, container=container,
        rows_per_shard=ROWS_PER_SHARD[modality], precision="imported",
        batch_plan=BatchPlan("in-order", 1), threads=1,
        canaries=Canaries(0, b"", None, None), environment={},
    )  # fmt: skip
    spec = EncoderSpec(FAMILY, encoder, None, tap)
    table = begin_table(cache, identity, encoder, spec, settings)
    add_spec(table, spec)
    table.restore_records()
    there = {record.shard for record in table.shards}
    for start in range(0, len(items), table.record.rows_per_shard):
        planned = items[start : start + table.record.rows_per_shard]
        name = shard_name(table.id, [item.key for item in planned])
        if name not in there:
            _write_shard(table, planned, name)
    table.seal()
    return table


def _write_shard(table: Table, items: Sequence[Item], name: str) -> None:
    texts = [item.text for item in items] if table.modality == "text" else None
    writer = ShardWriter(table.folder, table.record, [item.key for item in items], texts, name)
    with writer.abandoned_on_error():
        for start in range(0, len(items), _ROWS_AT_ONCE):
            batch = items[start : start + _ROWS_AT_ONCE]
            rows = [_stored(item, item.read(), table.dtype) for item in batch]
            positions = list(range(start, start + len(batch)))
            if table.ragged:
                writer.write(positions, np.concatenate(rows), [len(row) for row in rows])
            else:
                writer.write(positions, np.stack(rows))
    writer.commit()


def _stored(item: Item, row: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """A row in the stored type. Raises CacheError where a value has none there."""
    import torch

    exact = torch.from_numpy(row.astype(np.float32))
    stored = to_stored(exact, dtype)
    if not bool(torch.isfinite(widened(stored)).all()):
        if not bool(torch.isfinite(exact).all()):
            raise CacheError(f"{item.where}: has values that are not finite; mend them there")
        raise CacheError(
            f"{item.where}: value {float(exact.abs().max()):.6g} is too large for {dtype}; "
            "store it as --dtype bf16 or fp32"
        )
    return raw_rows(stored)
