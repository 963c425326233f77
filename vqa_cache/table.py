"""Reading a table: its record, its valid commit records, its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqa_cache import seal
from vqa_cache.arrays import read_texts
from vqa_cache.commit import committing
from vqa_cache.consistency import check_edges, check_texts
from vqa_cache.dtypes import torch_type
from vqa_cache.errors import CacheError, KeyNotFoundError
from vqa_cache.key_index import KeyIndex, first_occurrences
from vqa_cache.keys import KEY_BYTES, Keys, pack_keys, text_key, unpack_keys
from vqa_cache.quantised import as_given
from vqa_cache.ragged import Spans, Whole, pad, spans
from vqa_cache.reading import ArrayReader, memory_of, read_all, read_array
from vqa_cache.records.record import Record
from vqa_cache.records.shard import SealRecord, ShardRecord
from vqa_cache.records.table import StoredSpec
from vqa_cache.withdrawals import FOLDER as WITHDRAWN
from vqa_cache.withdrawals import withdraw

if TYPE_CHECKING:
    import torch


class Table:
    """All rows of one encoder, tap, preprocessing and stored type for one modality.

    Attributes:
        name: the label, unique in a cache.
        id: 32 hex digits, from the identity.
        modality: "image" or "text".
        row_shape: shape of one row; of one token where the table is ragged.
        ragged: whether rows have varying numbers of tokens.
        dtype: "float16", "float32", "bfloat16" or "int8", whose rows are given as float32.
        record: the table's record (FORMAT.md section 3).
    """

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError, DamagedError or NewerFormatError where neither the table's own
        record nor its seal tells what it is."""
        self.folder = folder
        self.record = seal.table_record(folder)
        self.name = self.record.name
        self.id = self.record.id
        self.modality = self.record.modality
        self.row_shape = self.record.row_shape
        self.ragged = self.record.ragged
        self.dtype = self.record.dtype

    @cached_property
    def _sealed(self) -> SealRecord:
        return seal.valid_seal(self.folder, self.record)

    @cached_property
    def shards(self) -> list[ShardRecord]:
        """Commit records in the order of their names: those that the seal lists, and other valid
        ones. An invalid one counts as absent; `vqa-cache verify` reports it. Raises
        NewerFormatError."""
        return [record for _, record in sorted(seal.commit_records(*self._listed).items())]

    @property
    def _listed(self) -> tuple[Path, SealRecord]:
        return self.folder, self._sealed

    def restore_records(self) -> None:
        """For writers, before they plan: write again what the seal lists and is missing or damaged,
        forget what was known and read the records themselves."""
        with committing(self.folder):
            self._restore()

    def _restore(self) -> None:
        seal.restore(self.folder, self.record)
        for known in ("shards", "_live", "_index", "_spans", "_stored", "failed", "withdrawn"):
            self.__dict__.pop(known, None)
        self.__dict__["_sealed"] = seal.empty_seal(self.record)

    def seal(self) -> None:
        """Write the seal over everything that was ever committed, if it is not up to date."""
        with committing(self.folder):
            self._restore()
            whole = SealRecord(
                self.record,
                {record.shard: record for record in self.shards},
                seal.withdrawal_records(*self._listed),
                seal.spec_records(*self._listed),
            )
            seal.write_seal(self.folder, whole)

    def withdraw(self, keys: Iterable[bytes], reason: str) -> None:
        """Commit that rows with these keys are served no more, nor encoded again.

        Args:
            reason: told where rows are missed; no part of it may belong to one machine.
        """
        withdraw(self.folder, self.id, keys, reason)
        self.seal()

    @cached_property
    def _live(self) -> tuple[Keys, Whole, Whole]:
        """Keys, shard and row in the shard of every row that is served; the first record of a key
        wins."""
        packed = [record.keys for record in self.shards]
        counts = [len(keys) for keys in packed]
        keys = np.concatenate([np.empty((0, KEY_BYTES), np.uint8), *packed])
        shard = np.repeat(np.arange(len(counts)), counts)
        row = np.concatenate([np.empty(0, np.int64), *map(np.arange, counts)])
        served = first_occurrences(keys)
        if self.withdrawn:
            served &= [key not in self.withdrawn for key in unpack_keys(keys)]
        return keys[served], shard[served], row[served]

    @property
    def keys(self) -> Keys:
        """Keys of all rows, uint8 [rows, 16], in the table's row order."""
        return self._live[0]

    def listed_records(self) -> dict[str, Mapping[str, Record]]:
        """Withdrawals and specs by the folder that they belong in, and by name. Raises DamagedError
        where a withdrawal is not valid."""
        return {
            WITHDRAWN: seal.withdrawal_records(*self._listed),
            "specs": seal.spec_records(*self._listed),
        }

    @cached_property
    def withdrawn(self) -> dict[bytes, str]:
        """Keys that are served no more -> why. Raises DamagedError where a record of them is."""
        found: dict[bytes, str] = {}
        for _, record in sorted(seal.withdrawal_records(*self._listed).items()):
            for key in record.split_keys():
                found.setdefault(key, f"withdrawn: {record.reason}")
        return found

    @cached_property
    def failed(self) -> dict[bytes, str]:
        """Keys that stage 1 recorded as failed and that no shard has, and those that were
        withdrawn -> why."""
        failures = {key: why for record in self.shards for key, why in record.failures.items()}
        present = {key.tobytes() for key in self.keys}
        absent = {key: why for key, why in failures.items() if key not in present}
        return absent | self.withdrawn

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row; of one token where the table is ragged."""
        return self.record.row_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of the rows of all shards, doubles included."""
        return sum(record.arrays["rows"].bytes for record in self.shards)

    @cached_property
    def _spans(self) -> Spans:
        _, shard, row = self._live
        return spans(shard, row, map(self.offsets, range(len(self.shards))))

    @property
    def lengths(self) -> Whole:
        """Tokens of each row of a ragged table, int64 [rows], in the table's row order."""
        return self._spans.count

    @property
    def places(self) -> tuple[Whole, Whole]:
        """Shard (its position in `shards`) and row in that shard of every row, int64 [rows]."""
        return self._live[1:]

    @cached_property
    def _index(self) -> KeyIndex:
        return KeyIndex(self.keys)

    def row_index(self, keys: Keys) -> Whole:
        """Row of each key [n, 16] -> int64 [n]; -1 where the table has none."""
        return self._index.find(keys)

    def stored(self, number: int) -> ArrayReader:
        """The rows of one shard, checked wherever they are asked for; of a ragged table its tokens,
        of which row i has `offsets(number)[i:i + 2]`."""
        if number not in self._stored:
            self._stored[number] = ArrayReader(self.folder, self.shards[number], "rows")
        return self._stored[number]

    @cached_property
    def _stored(self) -> dict[int, ArrayReader]:
        return {}

    def mapped(self, number: int) -> torch.Tensor:
        """All rows of one shard [rows, *stored_shape], of a ragged table all tokens [tokens,
        *stored_shape], mapped from its file and checked: int8 with the scales in it, for
        `quantised.widened`. Raises DamagedError."""
        return self.stored(number).mapped()

    def offsets(self, number: int) -> Whole:
        """Where the rows of one shard of a ragged table begin and end among its tokens, int64
        [rows + 1]. Raises DamagedError."""
        record = self.shards[number]
        edges = read_array(self.folder, record, "offsets")
        tokens = record.arrays["rows"].shape[0]
        check_edges(edges, tokens, f"{self.folder / record.path('offsets')}: offsets")
        return edges.astype(np.int64, copy=False)

    def tensor(self) -> torch.Tensor:
        """All rows [rows, *row_shape] in the stored type: mapped where one shard holds them all in
        order, otherwise read once into memory. They are checked against their record either way.
        int8 alone is given as float32, in memory: four times what is stored.

        Raises:
            CacheError: the table is ragged: `mapped` and `offsets` give its shards one by one.
            DamagedError: as `read` does.
        """
        return as_given(self.stored_rows())

    def stored_rows(self) -> torch.Tensor:
        """All rows [rows, *stored_shape] as `tensor` has them, and int8 as it is stored, for
        `quantised.widened`. Raises as `tensor` does."""
        if len(self.shards) == 1 and len(self) == self.shards[0].rows and not self.ragged:
            return self.mapped(0)
        return self.read()

    def read(self) -> torch.Tensor:
        """All rows [rows, *stored_shape], read into memory; every block is checked against its
        record on the way.

        Raises:
            CacheError: the table is ragged.
            DamagedError: a file is missing, too short, or differs from its checksums.
        """
        import torch

        if self.ragged:
            raise CacheError(
                f"table {self.name}: is ragged (rows of varying numbers of tokens), expected one "
                "whose rows have one shape; take one with tap=cls, mean or grid="
            )
        _, shard, row = self._live
        rows = self._empty(len(self))
        edges = np.searchsorted(shard, np.arange(len(self.shards) + 1)).tolist()
        pieces = []
        for number, (first, last) in enumerate(pairwise(edges)):
            record = self.shards[number]
            if last - first == record.rows:
                pieces.append((self.stored(number), memory_of(rows[first:last])))
            elif last > first:  # some of its rows are served from another shard, or withdrawn
                whole = self._empty(record.rows)
                read_all([(self.stored(number), memory_of(whole))])
                rows[first:last] = whole[torch.from_numpy(row[first:last])]
        read_all(pieces)
        return rows

    def rows(self, keys: Sequence[str | bytes]) -> torch.Tensor:
        """Rows of several keys [len(keys), *row_shape], in their order and the stored type; int8 as
        float32.

        Rows of a ragged table are filled up with zeros to the longest of them, [len(keys), longest,
        *row_shape]; `ragged_rows` gives them without.

        Raises:
            KeyNotFoundError: a key has no row.
            DamagedError: a block that holds some of them differs from its checksum.
        """
        import torch

        if self.ragged:
            return pad(*self.ragged_rows(keys))
        index = self._found(keys)
        _, shard, row = self._live
        out = self._empty(len(index))
        for number in np.unique(shard[index]):
            here = np.flatnonzero(shard[index] == number)
            chosen = torch.from_numpy(row[index[here]])
            out[torch.from_numpy(here)] = self.stored(int(number)).rows(chosen)
        return as_given(out)

    def ragged_rows(self, keys: Sequence[str | bytes]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of several keys of a ragged table: their tokens joined [tokens, *row_shape], and
        int64 offsets [len(keys) + 1], row i having tokens[offsets[i]:offsets[i + 1]]; int8 as
        float32. Raises as `rows` does."""
        tokens, offsets = self.stored_tokens(self._found(keys))
        return as_given(tokens), offsets

    def stored_tokens(self, rows: Whole) -> tuple[torch.Tensor, torch.Tensor]:
        """`ragged_rows` by number, int64 [n], and int8 as it is stored, for `quantised.widened`:
        [tokens, *stored_shape]. Raises DamagedError."""
        return self._spans.gather(rows, self.stored, self._empty(0))

    def _empty(self, rows: int) -> torch.Tensor:
        """Room for rows, or tokens, as they are stored."""
        import torch

        return torch.empty((rows, *self.record.stored_shape), dtype=torch_type(self.dtype))

    def _found(self, keys: Sequence[str | bytes]) -> Whole:
        """Row of each key. Raises KeyNotFoundError."""
        index = self.row_index(pack_keys([self._key(key) for key in keys]))
        if len(index) and index.min() < 0:
            missing = keys[int(np.flatnonzero(index < 0)[0])]
            raise KeyNotFoundError(
                f"table {self.name}: no row for {missing!r} "
                f"({int((index < 0).sum())} of {len(index)} keys are missing); "
                "expected "
                + ("a text" if self.modality == "text" else "an image key of 32 hex digits")
                + " that was encoded"
            )
        return index

    def __getitem__(self, key: str | bytes) -> torch.Tensor:
        """One row [*row_shape], of a ragged table [tokens, *row_shape]; int8 as float32. A key is
        the text itself, or an image's hex content key (or the 16 bytes)."""
        return self.rows([key])[0]

    def _key(self, key: str | bytes) -> bytes:
        if isinstance(key, str) and self.modality == "text":
            return text_key(key)
        try:
            raw = key if isinstance(key, bytes) else bytes.fromhex(key)
        except ValueError:
            raw = b""
        if len(raw) != KEY_BYTES:
            expected = "a text" if self.modality == "text" else "32 hex digits"
            raise KeyNotFoundError(
                f"table {self.name}: {key!r} is not {'a' if self.modality == 'text' else 'an'} "
                f"{self.modality} key; expected {expected} or {KEY_BYTES} bytes"
            )
        return raw

    def texts(self) -> list[str]:
        """The texts of a text table's rows, in row order."""
        if self.modality != "text":
            raise CacheError(f"table {self.name}: holds images, it has no texts")
        _, shard, row = self._live
        per_shard = [self._texts(record) for record in self.shards]
        return [per_shard[s][r] for s, r in zip(shard.tolist(), row.tolist(), strict=True)]

    def _texts(self, record: ShardRecord) -> list[str]:
        joined = read_array(self.folder, record, "texts")
        edges = read_array(self.folder, record, "text_offsets")
        check_texts(joined, edges, f"{self.folder / record.path('text_offsets')}: text_offsets")
        return read_texts(joined, edges)

    def specs(self) -> list[StoredSpec]:
        """The encoder specs that resolved to this table; an invalid record counts as absent."""
        return [record.spec for _, record in sorted(seal.spec_records(*self._listed).items())]

    def __repr__(self) -> str:
        return f"<Table {self.name}: {len(self)} rows {self.record.shown_shape}>"
