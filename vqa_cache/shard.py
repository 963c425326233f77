"""Writing one shard and its commit record (FORMAT.md section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vqa_cache import arrays
from vqa_cache.commit import committing
from vqa_cache.containers import SUFFIX, ArrayLayout, Extent, lay_out
from vqa_cache.dtypes import numpy_type
from vqa_cache.errors import DamagedError
from vqa_cache.keys import KEY_BYTES, pack_keys
from vqa_cache.records.record import encode_record
from vqa_cache.records.shard import Failure, ShardRecord, read_shard_record
from vqa_cache.records.table import TableRecord
from vqa_cache.system.durable import (
    Workspace,
    make_folder,
    put_in_place,
    remove,
    sync_tree,
    write_file,
)

if TYPE_CHECKING:
    from vqa_cache.table import Table

ROWS_PER_SHARD = {"image": 1024, "text": 16384}  # of a new table, unless asked otherwise


def shard_name(table_id: str, planned: list[bytes], retry: int = 0) -> str:
    """Name of the shard that holds these planned keys; known before anything is encoded."""
    digest = hashlib.sha256(bytes.fromhex(table_id))
    digest.update(b"".join(planned))
    if retry:
        digest.update(f"retry{retry}".encode())
    return digest.hexdigest()[:32]


class ShardWriter:
    """Writes the rows of one shard in any order, then commits it.

    Rows go straight to their place in the file, so memory stays that of one batch. Ragged rows wait
    in a file, as they come, until the last one tells where each stands.
    """

    def __init__(
        self,
        folder: Path,
        table: TableRecord,
        planned: list[bytes],
        texts: list[str] | None,
        name: str,
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
        self.truncated = 0  # texts that the encoder cut
        self._final = folder / "shards" / (name + SUFFIX[table.container])
        for part in ("shards", "records"):  # one of them may have been lost
            make_folder(folder / part, folder)
        self._workspace = Workspace(self._final)
        self._row_bytes = self._rows_layout(1).bytes  # of one token, in a ragged table
        self._waiting: dict[int, tuple[int, int]] = {}  # ragged: position -> offset, bytes
        self._end = 0  # of what waits
        with self.abandoned_on_error():
            if table.ragged:
                self._unfinished.touch()
                self._extents = {"rows": Extent("", 0)}
            else:
                self._lay_out(len(planned), len(planned))

    @property
    def _unfinished(self) -> Path:
        return self._workspace.path

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Delete what was written when the block raises: a full disk is not filled for good."""
        try:
            yield
        except BaseException:
            self.abandon()
            raise

    def _rows_layout(self, rows: int) -> ArrayLayout:
        shape = self.table.stored_shape
        first = "token_row" if self.table.ragged else "row"
        return ArrayLayout("rows", self.table.dtype, (rows, *shape), (first, *_axes(self.table)))

    def _lay_out(self, rows: int, tokens: int) -> None:
        """Args: tokens: of all rows together; as many as rows unless the table is ragged."""
        self._layouts = [
            self._rows_layout(tokens),
            ArrayLayout("keys", "uint8", (rows, KEY_BYTES), ("row", "key_byte")),
        ]
        if self.table.ragged:
            self._layouts.append(ArrayLayout("offsets", "int64", (rows + 1,), ("row_edge",)))
        if self.texts is not None:
            size = sum(len(self.texts[i].encode()) for i in self._kept())
            self._layouts += [
                ArrayLayout("texts", "uint8", (size,), ("text_byte",)),
                ArrayLayout("text_offsets", "int64", (rows + 1,), ("row_edge",)),
            ]
        self._extents = lay_out(self._unfinished, self.table.container, self._layouts)

    def _kept(self) -> list[int]:
        return [i for i in range(len(self.planned)) if i not in self.failed]

    def _place(self, array: str) -> tuple[Path, int]:
        extent = self._extents[array]
        return self._unfinished / extent.file if extent.file else self._unfinished, extent.offset

    def write(
        self, positions: list[int], rows: npt.NDArray[Any], lengths: list[int] | None = None
    ) -> None:
        """Put rows at their planned positions.

        Args:
            rows: in the stored type (bfloat16 as uint16), [len(positions), *stored_shape]; of a
                ragged table the tokens of all rows joined, [sum(lengths), *stored_shape].
            lengths: tokens of each row, [len(positions)]: for a ragged table, and for it alone.

        Raises:
            ValueError: rows of another shape or type.
        """
        ragged = self.table.ragged
        count = sum(lengths or []) if ragged else len(positions)
        expected = (count, *self.table.stored_shape)
        told = len(positions) if lengths is None else len(lengths)
        if (
            rows.shape != expected
            or rows.dtype != numpy_type(self.table.dtype)
            or (lengths is not None) != ragged
            or told != len(positions)
        ):
            raise ValueError(
                f"shard {self.name}: rows {rows.dtype}{list(rows.shape)}, "
                f"expected {self.table.dtype}{list(expected)}"
                + (f" and a length for each of {len(positions)} rows" if ragged else "")
            )
        if lengths is not None:
            self._wait(positions, rows, lengths)
            return
        file, offset = self._place("rows")
        if positions == list(range(positions[0], positions[0] + len(positions))):
            arrays.fill(file, offset + positions[0] * self._row_bytes, rows)
            return
        for position, row in zip(positions, rows, strict=True):
            arrays.fill(file, offset + position * self._row_bytes, row)

    def _wait(self, positions: list[int], rows: npt.NDArray[Any], lengths: list[int]) -> None:
        arrays.fill(self._unfinished, self._end, rows)
        for position, length in zip(positions, lengths, strict=True):
            self._waiting[position] = self._end, length * self._row_bytes
            self._end += length * self._row_bytes

    def commit(self) -> ShardRecord:
        """Finish, publish and record the shard; the commit record. If another writer has committed
        it meanwhile, this copy is dropped and the other's record returned."""
        with closing(self._workspace):
            return commit_shard(self.folder, self.table, self._finish(), self._unfinished)

    def repair(self, record: ShardRecord) -> None:
        """Put files of the shard in place of those that differ from this commit record, which
        stays.

        Raises:
            DamagedError: the bytes made now differ from those recorded; nothing was replaced.
        """
        with closing(self._workspace):
            if self._finish().files != record.files:
                raise DamagedError(
                    f"shard {self.name} of {self.table.name}: encoded again it differs from its "
                    "record (another machine, thread count or library?); it was left as it is"
                )
            sync_tree(self._unfinished)
            with committing(self.folder):
                if self._unfinished.is_dir() and not self._final.is_dir():
                    put_in_place(self._unfinished, self._final)
                for file in record.files:
                    final = self.folder / file.path
                    if arrays.check_file(self.folder, file, content=True):
                        make_folder(final.parent, self.folder)
                        inner = final.relative_to(self._final)
                        put_in_place(self._unfinished / inner, final)

    def _finish(self) -> ShardRecord:
        kept = self._kept()
        if self.table.ragged:
            spans = [self._waiting[position] for position in kept]
            edges = np.cumsum([0, *(size // self._row_bytes for _, size in spans)], dtype=np.int64)
            self._lay_out_again(spans, int(edges[-1]))
            self._fill("offsets", edges)
        elif self.failed:
            start, size = self._extents["rows"].offset, self._row_bytes
            self._lay_out_again([(start + i * size, size) for i in kept], len(kept))
        self._fill("keys", pack_keys([self.planned[i] for i in kept]))
        if self.texts is not None:
            columns = arrays.text_arrays("text", [self.texts[i] for i in kept])
            self._fill("texts", columns["text_bytes"])
            self._fill("text_offsets", columns["text_offsets"])
        stored = arrays.describe(
            self._unfinished, f"shards/{self._final.name}", self._layouts, self._extents
        )
        return ShardRecord(
            table=self.table.id,
            shard=self.name,
            container=self.table.container,
            planned=b"".join(self.planned),
            failed=tuple(Failure(i, self.failed[i]) for i in sorted(self.failed)),
            rows=len(kept),
            truncated=self.truncated,
            files=stored.files,
            arrays=stored.arrays,
        )

    def abandon(self) -> None:
        """Delete what was written."""
        self._workspace.close()

    def _fill(self, array: str, data: npt.NDArray[Any]) -> None:
        if data.size:
            arrays.fill(*self._place(array), data)

    def _lay_out_again(self, spans: list[tuple[int, int]], tokens: int) -> None:
        """Lay the shard out for the rows that it holds, its size being fixed when laid out, and
        copy them: (offset, bytes) of each in the file as it was."""
        before, (file, _) = self._unfinished, self._place("rows")
        old = before.with_name("before")
        before.rename(old)
        self._lay_out(len(spans), tokens)
        target, start = self._place("rows")
        for offset, size in _runs(spans):
            arrays.copy_range(old / file.relative_to(before), offset, size, target, start)
            start += size
        remove(old)


def is_committed(table: Table, name: str) -> bool:
    """Whether a shard has a valid record by now."""
    try:
        read_shard_record(table.folder / "records" / f"{name}.json", table.record)
    except (FileNotFoundError, DamagedError):
        return False
    return True


def commit_shard(
    folder: Path, table: TableRecord, record: ShardRecord, unfinished: Path
) -> ShardRecord:
    """Put a whole shard in place and record it; the record that holds, which is another writer's
    where that came first.

    Args:
        folder: the table's.
        unfinished: the shard's file or folder, in a workspace.
    """
    path = folder / "records" / f"{record.shard}.json"
    sync_tree(unfinished)
    with committing(folder):
        try:
            return read_shard_record(path, table)
        except (FileNotFoundError, DamagedError):  # what lies under its name is left over
            name = record.shard + SUFFIX[record.container]
            put_in_place(unfinished, folder / "shards" / name)
            write_file(path, encode_record(record))
    return record


def _runs(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans (offset, bytes) with those joined that follow upon each other."""
    runs: list[tuple[int, int]] = []
    for offset, size in spans:
        if runs and sum(runs[-1]) == offset:
            runs[-1] = runs[-1][0], runs[-1][1] + size
        elif size:
            runs.append((offset, size))
    return runs


def _axes(table: TableRecord) -> tuple[str, ...]:
    """Names of a row's dimensions. The last one of int8 counts a vector's integers and scale."""
    last = "feature_byte" if table.dtype == "int8" else "feature"
    count = len(table.row_shape) - 1
    return (*(["token"] if count == 1 else [f"axis{i}" for i in range(count)]), last)
