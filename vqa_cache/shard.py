"""Writing one shard and its commit record (FORMAT.md section 4)."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vqa_cache import arrays
from vqa_cache.containers import SUFFIX, ArrayLayout, lay_out
from vqa_cache.dtypes import numpy_type
from vqa_cache.durable import publish, remove, removed_on_error, temporary_path, write_file
from vqa_cache.errors import DamagedError
from vqa_cache.keys import KEY_BYTES, pack_keys, unpack_keys
from vqa_cache.records import Record, encode_record, read_record

_FEATURE_AXES = {1: ("feature",), 2: ("token", "feature")}


def shard_name(table_id: str, planned: list[bytes], retry: int = 0) -> str:
    """Name of the shard that holds these planned keys; known before anything is encoded."""
    digest = hashlib.sha256(bytes.fromhex(table_id))
    digest.update(b"".join(planned))
    if retry:
        digest.update(f"retry{retry}".encode())
    return digest.hexdigest()[:32]


def planned_keys(record: Record) -> list[bytes]:
    """The planned keys of a commit record, failed ones included."""
    return unpack_keys(
        np.frombuffer(base64.b64decode(record["planned"]), np.uint8).reshape(-1, KEY_BYTES)
    )


def row_keys(record: Record) -> list[bytes]:
    """The keys of a shard's rows, in row order."""
    failed = {failure["position"] for failure in record["failed"]}
    return [key for position, key in enumerate(planned_keys(record)) if position not in failed]


def failed_keys(record: Record) -> dict[bytes, str]:
    """Keys that could not be encoded -> the error."""
    planned = planned_keys(record)
    return {planned[failure["position"]]: failure["error"] for failure in record["failed"]}


class ShardWriter:
    """Writes the rows of one shard in any order, then commits it.

    Rows go straight to their place in the file, so memory stays that of one batch.
    """

    def __init__(
        self, folder: Path, table: Record, planned: list[bytes], texts: list[str] | None, name: str
    ) -> None:
        """
        Args:
            folder: the table's folder.
            table: the table's record.
            planned: the planned keys, in order.
            texts: their texts, for a text table.
            name: from `shard_name`.
        """
        self.folder, self.table, self.planned, self.texts = folder, table, planned, texts
        self.name = name
        self.failed: dict[int, str] = {}  # planned positions without a row -> why
        self._final = folder / "shards" / (name + SUFFIX[table["container"]])
        self.temporary = temporary_path(self._final)
        self._row_bytes = self._rows_layout(1).bytes
        for part in ("shards", "records"):  # one of them may have been lost
            (folder / part).mkdir(exist_ok=True)
        self._lay_out(len(planned))

    def _rows_layout(self, rows: int) -> ArrayLayout:
        shape = tuple(self.table["row_shape"])
        return ArrayLayout("rows", self.table["dtype"], (rows, *shape), ("row", *_axes(shape)))

    def _lay_out(self, rows: int) -> None:
        remove(self.temporary)
        self._layouts = [
            self._rows_layout(rows),
            ArrayLayout("keys", "uint8", (rows, KEY_BYTES), ("row", "key_byte")),
        ]
        if self.texts is not None:
            size = sum(len(self.texts[i].encode()) for i in self._kept())
            self._layouts += [
                ArrayLayout("texts", "uint8", (size,), ("text_byte",)),
                ArrayLayout("text_offsets", "int64", (rows + 1,), ("row_edge",)),
            ]
        with removed_on_error(self.temporary):
            self._extents = lay_out(self.temporary, self.table["container"], self._layouts)

    def _kept(self) -> list[int]:
        return [i for i in range(len(self.planned)) if i not in self.failed]

    def _place(self, array: str) -> tuple[Path, int]:
        extent = self._extents[array]
        return self.temporary / extent.file if extent.file else self.temporary, extent.offset

    def write(self, positions: list[int], rows: npt.NDArray[Any]) -> None:
        """Put rows [len(positions), *row_shape], in the stored type (bfloat16 as uint16), at their
        planned positions."""
        expected = (len(positions), *self.table["row_shape"])
        if rows.shape != expected or rows.dtype != numpy_type(self.table["dtype"]):
            raise ValueError(
                f"shard {self.name}: rows {rows.dtype}{list(rows.shape)}, "
                f"expected {self.table['dtype']}{list(expected)}"
            )
        file, offset = self._place("rows")
        if positions == list(range(positions[0], positions[0] + len(positions))):
            arrays.fill(file, offset + positions[0] * self._row_bytes, rows)
            return
        for position, row in zip(positions, rows, strict=True):
            arrays.fill(file, offset + position * self._row_bytes, row)

    def commit(self) -> Record:
        """Finish, publish and record the shard; the commit record. If another writer has committed
        it meanwhile, this copy is dropped and the other's record returned."""
        path = self.folder / "records" / f"{self.name}.json"
        with removed_on_error(self.temporary):
            fields = self._finish()
            try:
                record = read_record(path, "shard")
            except (FileNotFoundError, DamagedError):
                publish(self.temporary, self._final)
                write_file(path, encode_record("shard", fields))
                return read_record(path, "shard")
        self.abandon()
        return record

    def repair(self, record: Record) -> None:
        """Publish the shard in place of a damaged one with this commit record.

        Raises:
            DamagedError: the bytes made now differ from those recorded; nothing was replaced.
        """
        with removed_on_error(self.temporary):
            fields = self._finish()
            if fields["files"] != record["files"]:
                raise DamagedError(
                    f"shard {self.name} of {self.table['name']}: encoded again it differs from its "
                    "record (another machine, thread count or library?); it was left as it is"
                )
            publish(self.temporary, self._final)

    def _finish(self) -> Record:
        if self.failed:
            self._close_gaps()
        kept = self._kept()
        self._fill("keys", pack_keys([self.planned[i] for i in kept]))
        if self.texts is not None:
            columns = arrays.text_arrays("text", [self.texts[i] for i in kept])
            self._fill("texts", columns["text_bytes"])
            self._fill("text_offsets", columns["text_offsets"])
        return {
            "table": self.table["id"],
            "shard": self.name,
            "container": self.table["container"],
            "planned": base64.b64encode(b"".join(self.planned)).decode(),
            "failed": [{"position": i, "error": self.failed[i]} for i in sorted(self.failed)],
            "rows": len(kept),
            **arrays.describe(
                self.temporary, f"shards/{self._final.name}", self._layouts, self._extents
            ),
        }

    def abandon(self) -> None:
        """Delete what was written."""
        remove(self.temporary)

    def _fill(self, array: str, data: npt.NDArray[Any]) -> None:
        if data.size:
            arrays.fill(*self._place(array), data)

    def _close_gaps(self) -> None:
        """Lay the shard out again without the failed positions: its size is fixed when laid out."""
        full, (file, offset) = self.temporary, self._place("rows")
        old = full.with_name(full.name + "-with-gaps")
        full.rename(old)
        source_file = old / file.relative_to(full) if file != full else old
        with removed_on_error(old):
            self._lay_out(len(self._kept()))
            self._copy_kept(source_file, offset)
        remove(old)

    def _copy_kept(self, source_file: Path, offset: int) -> None:
        with open(source_file, "rb") as source:
            for row, position in enumerate(self._kept()):
                source.seek(offset + position * self._row_bytes)
                target, start = self._place("rows")
                arrays.fill(target, start + row * self._row_bytes, source.read(self._row_bytes))


def _axes(shape: tuple[int, ...]) -> tuple[str, ...]:
    return _FEATURE_AXES.get(len(shape)) or (
        *(f"axis{i}" for i in range(len(shape) - 1)),
        "feature",
    )
