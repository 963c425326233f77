"""Opening a cache: its tables, its examples, its face in a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_cache.commit import MARKER
from vqa_cache.contents import FILE as SEAL
from vqa_cache.contents import (
    list_contents,
    picture_path,
    read_contents,
    split_folders,
    split_record,
)
from vqa_cache.errors import CacheError, DamagedError, NotACacheError, TableNotFoundError
from vqa_cache.examples import Split, read_split
from vqa_cache.records.contents import ContentsRecord
from vqa_cache.records.record import CacheRecord, encode_record, read_record
from vqa_cache.records.split import SplitRecord
from vqa_cache.records.table import StoredSpec, TableRecord
from vqa_cache.remedy import remedy
from vqa_cache.system.durable import (
    create_file,
    is_temporary,
    make_folder,
    remove_stale_temporaries,
    write_file,
)
from vqa_cache.system.lines import one_line
from vqa_cache.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from vqa_cache.spec import Modality


class Tables(Mapping[str, Table]):
    """The tables of a cache by name; a shorter name works while it fits one table alone."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self._tables = tables

    def __getitem__(self, name: str) -> Table:
        if name in self._tables:
            return self._tables[name]
        found = [table for full, table in self._tables.items() if name in full]
        if len(found) == 1:
            return found[0]
        what = "no table" if not found else f"{len(found)} tables"
        listed = ", ".join(table.name for table in found or self._tables.values()) or "none"
        raise TableNotFoundError(
            f"{what} named {name!r}; {'those are' if found else 'the cache has'}: {listed}"
        )

    def __contains__(self, name: object) -> bool:
        return name in self._tables

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._tables.values())) or "no tables"


class Cache:
    """A cache folder, opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def tables(self) -> Tables:
        """All tables, by name. Raises NewerFormatError, and DamagedError where nothing tells what a
        table is: without it rows would be missing unseen."""
        tables: dict[str, Table] = {}
        for folder in sorted((self.path / "tables").glob("*/*/*/*")):
            with suppress(FileNotFoundError):  # begun, and no more
                table = Table(folder)
                tables[table.name] = table
        return Tables(tables)

    def find_table(self, wanted: str, modality: Modality) -> Table:
        """The one table that a spec or a (short) name means.

        Raises:
            TableNotFoundError: none or several; the text lists the tables and what differs.
        """
        from vqa_cache.spec import is_table_name, parse_spec

        if is_table_name(wanted):
            table = self.tables[wanted]
            if table.modality != modality:
                raise TableNotFoundError(
                    f"table {table.name} holds {table.modality}s, expected one of {modality}s"
                )
            return table
        spec = parse_spec(wanted).with_default_tap(modality).portable()
        candidates = [table for table in self.tables.values() if table.modality == modality]
        matches, reasons = [], []
        for table in candidates:
            differences = [_difference(spec, other) for other in table.specs()]
            if "" in differences:
                matches.append(table)
            else:
                reasons.append(f"{table.name} ({min(differences, key=len, default='no spec')})")
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise TableNotFoundError(
                f"{len(matches)} {modality} tables in {self.path} match {wanted!r}: "
                f"{', '.join(table.name for table in matches)}; name one of them instead"
            )
        raise TableNotFoundError(
            f"no {modality} table in {self.path} for {wanted!r}; "
            + (f"the cache has: {'; '.join(reasons)}" if reasons else f"it has no {modality} table")
        )

    @property
    def splits(self) -> list[str]:
        """Names of all splits, "<dataset>/<split>"."""
        return sorted({*split_folders(self.path), *read_contents(self.path).splits})

    def split(self, name: str) -> Split:
        """The columns of a split, "<dataset>/<split>".

        Raises:
            CacheError: there is none of this name; the text lists the known ones.
            DamagedError: its records or its columns are damaged.
        """
        return read_split(self.path / "examples" / name, self.split_record(name))

    def split_record(self, name: str) -> SplitRecord:
        """The current record of a split. Raises as `split` does."""
        if name not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise CacheError(f"{self.path}: no split {name!r}; the cache has: {known}")
        try:
            return split_record(self.path, name)
        except DamagedError as error:
            raise DamagedError(
                f"{error}; write it again: {remedy(self.path / 'examples' / name)}"
            ) from error

    def examples(self, name: str) -> pd.DataFrame:
        """The examples of a split as a DataFrame, one row each."""
        return self.split(name).to_pandas()

    def thumbnail(self, image_key: str) -> Path | None:
        """The small picture of an image, if stage 1 kept one."""
        path = picture_path(self.path, image_key)
        return path if path.exists() else None

    def summary(self) -> list[dict[str, Any]]:
        """What the cache holds, one dict a table: name, rows, shape, dtype, ragged, bytes, failed,
        shards, precision, spec."""
        return [
            {
                "name": table.name,
                "rows": len(table),
                "shape": list(table.row_shape),
                "dtype": table.dtype,
                "ragged": table.ragged,
                "bytes": table.stored_bytes,
                "failed": len(table.failed),
                "shards": len(table.shards),
                "precision": table.record.precision,
                "spec": spec_text(table.record.spec),
            }
            for table in self.tables.values()
        ]

    def __repr__(self) -> str:
        lines = [f"<vqa-cache {self.path}>"]
        lines += [f"  {table!r}" for table in self.tables.values()]
        lines += [f"  {name}" for name in self.splits]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        columns = ["name", "rows", "shape", "dtype", "bytes", "failed", "precision"]
        head = "".join(f"<th>{name}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(str(row[name]))}</td>" for name in columns) + "</tr>"
            for row in self.summary()
        )
        splits = "".join(
            f"<li>{escape(name)}: {len(self.split(name)):,} examples</li>" for name in self.splits
        )
        return (
            f"<b>vqa-cache</b> <code>{escape(str(self.path))}</code>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{splits}</ul>"
        )


def spec_text(spec: StoredSpec) -> str:
    """A stored spec as a user would type it."""
    from vqa_cache.spec import EncoderSpec

    return str(EncoderSpec(**spec.as_json()))


def _difference(wanted: StoredSpec, stored: StoredSpec) -> str:
    """What of a wanted spec a stored one lacks; empty if it matches. A revision counts if given."""
    parts = []
    for part in ("family", "model", "tap"):
        has, wants = getattr(stored, part), getattr(wanted, part)
        if has != wants:
            parts.append(f"{part} {has}, wanted {wants}")
    if wanted.revision and wanted.revision != stored.revision:
        parts.append(f"revision {stored.revision}, wanted {wanted.revision}")
    for name in sorted({*wanted.options, *stored.options}):
        has, wants = stored.options.get(name), wanted.options.get(name)
        if has != wants:
            parts.append(f"{name} {has or 'not set'}, wanted {wants or 'not set'}")
    return ", ".join(parts)


def _as_path(path: str | Path) -> Path:
    """A path that a system call takes. Raises NotACacheError."""
    try:
        os.fsencode(path)
    except ValueError:  # a lone surrogate
        valid = False
    else:
        valid = "\0" not in str(path)
    if not valid:
        raise NotACacheError(f"{one_line(path)}: is no path that a folder can have")
    return Path(path)


def open_cache(path: str | Path) -> Cache:
    """Open a cache for reading; of one in an object store (`s3://...`) what the local copy lacks is
    downloaded first.

    Raises:
        NotACacheError: there is none at this path.
        NewerFormatError: it was written by a newer version of this project.
    """
    if "://" in str(path):
        from vqa_cache.tools.stores import fetched

        path = fetched(str(path))
    root = _as_path(path)
    try:
        read_record(root / "CACHE.json", CacheRecord)
    except (FileNotFoundError, NotADirectoryError):
        raise NotACacheError(
            f"{root}: no cache here (no CACHE.json); name its folder, or make one with: "
            f"python -m precompute --for cosine_answers --cache {root}"
        ) from None
    except DamagedError as error:
        raise DamagedError(f"{error}; the next run of stage 1 writes it again") from error
    return Cache(root)


def create_cache(path: str | Path) -> Cache:
    """Open a cache for writing, making an empty one where the folder is absent or holds at
    most unfinished work. What writers that died left unfinished is deleted, and `CACHE.json`
    written again where it is gone or damaged.

    Raises:
        NotACacheError: the folder holds other things.
        NewerFormatError: it was written by a newer version of this project.
    """
    root = _as_path(path)
    marker, content = root / MARKER, encode_record(CacheRecord())
    try:
        read_record(marker, CacheRecord)
    except (FileNotFoundError, NotADirectoryError, DamagedError):
        if not (marker.exists() or _is_empty(root) or _holds_records(root)):
            raise NotACacheError(
                f"{root}: exists and is no cache; expected a new or empty folder"
            ) from None
        make_folder(root, next(path for path in root.absolute().parents if path.is_dir()))
        if not create_file(marker, content):  # another writer's by now, or damaged
            try:
                read_record(marker, CacheRecord)
            except DamagedError:
                if not _holds_records(root):
                    raise
                write_file(marker, content)
    cache = open_cache(root)
    remove_stale_temporaries(root)
    if not (root / SEAL).exists():
        list_contents(root)
    return cache


def _is_empty(root: Path) -> bool:
    """Whether a folder is absent or holds unfinished work alone."""
    return not root.exists() or (
        root.is_dir() and all(is_temporary(path) for path in root.iterdir())
    )


def _holds_records(root: Path) -> bool:
    """Whether a folder is a cache, whatever its CACHE.json is: it holds a valid record."""
    kinds = ((SEAL, ContentsRecord), ("tables/*/*/*/*/table.json", TableRecord))
    for pattern, kind in kinds:
        for path in root.glob(pattern):
            with suppress(DamagedError, OSError):
                read_record(path, kind)
                return True
    return False
