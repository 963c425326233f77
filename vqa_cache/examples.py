"""The examples of a split as columns (FORMAT.md section 5)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vqa_cache import arrays
from vqa_cache.commit import cache_root, committing
from vqa_cache.consistency import check_edges, check_positions, check_texts
from vqa_cache.containers import ArrayLayout, lay_out
from vqa_cache.errors import DamagedError
from vqa_cache.keys import Keys, canonical_json
from vqa_cache.reading import read_array
from vqa_cache.records.record import encode_record
from vqa_cache.records.split import Skipped, SplitRecord, read_split_record
from vqa_cache.records.stored import Stored
from vqa_cache.system.durable import Workspace, make_folder, put_in_place, sync_tree, write_file

if TYPE_CHECKING:
    import pandas as pd

Column = npt.NDArray[Any]
Columns = dict[str, Column]


@dataclass(frozen=True)
class Split:
    """One split of a dataset, n examples over K distinct images and Q distinct questions.

    Attributes:
        name: "<dataset>/<split>".
        digest: 32 hex digits over the content.
        annotated: whether it has answers.
        limit: how many examples were asked for; None = all.
        skipped: what was left out and why.
        question_id: int64 [n], or object [n] of str.
        image_id: likewise; the first image's id.
        image_keys: uint8 [K, 16].
        image_positions: int32 [n], the first image in `image_keys`; -1 = missing.
        image_lists: None, or (int32 [m], int64 [n + 1]) where an example has several images.
        question_keys: uint8 [Q, 16].
        question_positions: int32 [n], in `question_keys`.
        question_texts: Q texts, decoded when they are asked for.
        answer_texts: A distinct answers.
        answer: int32 [n], the majority answer in `answer_texts`; -1 = unlabelled.
        answers, answers_offsets: int32 [m], int64 [n + 1]: every annotator's answer.
        question_type, answer_type: int32 [n] into `question_types`, `answer_types`; -1 = none.
    """

    name: str
    digest: str
    annotated: bool
    limit: int | None
    skipped: Sequence[Skipped]
    question_id: Column
    image_id: Column
    image_keys: Keys
    image_positions: npt.NDArray[np.int32]
    image_lists: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]] | None
    question_keys: Keys
    question_positions: npt.NDArray[np.int32]
    question_texts: Sequence[str]
    answer_texts: list[str]
    answer: npt.NDArray[np.int32]
    answers: npt.NDArray[np.int32]
    answers_offsets: npt.NDArray[np.int64]
    question_types: list[str]
    question_type: npt.NDArray[np.int32]
    answer_types: list[str]
    answer_type: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.answer)

    def to_pandas(self) -> pd.DataFrame:
        """One row an example: question_id, image_id, image_key, question, answer, answers,
        question_type, answer_type. With several images `image_key` is the first one's."""
        import pandas as pd

        def named(codes: npt.NDArray[np.int32], names: list[str]) -> list[str | None]:
            return [names[code] if code >= 0 else None for code in codes.tolist()]

        hex_keys: list[str | None] = [key.tobytes().hex() for key in self.image_keys]
        edges = self.answers_offsets.tolist()
        every = named(self.answers, self.answer_texts)
        return pd.DataFrame(
            {
                "question_id": self.question_id,
                "image_id": self.image_id,
                "image_key": [hex_keys[i] if i >= 0 else None for i in self.image_positions],
                "question": [self.question_texts[i] for i in self.question_positions],
                "answer": named(self.answer, self.answer_texts),
                "answers": [every[a:b] for a, b in pairwise(edges)],
                "question_type": named(self.question_type, self.question_types),
                "answer_type": named(self.answer_type, self.answer_types),
            }
        )


def current_record(folder: Path) -> SplitRecord | None:
    """The record of a split's newest generation; None where there is none.

    Raises:
        DamagedError: it is damaged, or belongs to another split: an older generation is not what
            was asked for.
        NewerFormatError: a newer version wrote it.
    """
    newest = newest_generation(folder)
    return read_split_record(folder / f"{newest:06d}.json") if newest else None


def newest_generation(folder: Path) -> int:
    """The highest generation that has a record file, valid or not; 0 for none."""
    stems = [path.stem for path in folder.glob("[0-9]*.json")]
    return max((int(stem) for stem in stems if stem.isdecimal()), default=0)


def write_split(
    folder: Path,
    columns: Columns,
    *,
    examples: int,
    annotated: bool,
    limit: int | None,
    skipped: Sequence[Skipped],
) -> bool:
    """Commit the columns of a split as its next generation; False, and nothing written, if the
    current generation already says the same and its columns are undamaged.

    What is damaged is replaced under its own number. Of several writers one comes after the other.

    Args:
        folder: `<cache>/examples/<dataset>/<split>`.
        columns: array name -> array, as in FORMAT.md section 5.
    """
    said = {"annotated": annotated, "limit": limit, "skipped": [one.as_json() for one in skipped]}
    content = _content(columns, said)
    make_folder(folder, cache_root(folder))
    if _is_there(folder, content):
        return False
    with Workspace(folder / "columns.h5") as unfinished:
        stored = _write_columns(unfinished, columns)
        sync_tree(unfinished)
        with committing(folder):
            if _is_there(folder, content):  # another writer's, by now
                return False
            generation = _generation(folder, content, stored)
            record = SplitRecord(
                dataset=folder.parent.name,
                split=folder.name,
                generation=generation,
                examples=examples,
                annotated=annotated,
                limit=limit,
                content=content,
                skipped=tuple(skipped),
                files=(replace(stored.files[0], path=f"{generation:06d}.h5"),),
                arrays=stored.arrays,
            )
            put_in_place(unfinished, folder / record.files[0].path)
            write_file(folder / f"{generation:06d}.json", encode_record(record))
    return True


def _valid(folder: Path) -> SplitRecord | None:
    with suppress(DamagedError):
        return current_record(folder)
    return None


def _is_there(folder: Path, content: str) -> bool:
    """Whether the current generation holds this content, undamaged."""
    record = _valid(folder)
    return (
        record is not None
        and record.content == content
        and not any(arrays.check_files(folder, record, content=True))
    )


def _generation(folder: Path, content: str, stored: Stored) -> int:
    """The number under which columns are written: that of a damaged generation that nobody can
    read, or that these columns mend; otherwise the next one."""
    newest, record = newest_generation(folder), _valid(folder)
    if newest and record is None:
        return newest
    if record is not None and record.content == content:
        was, made = record.files[0], stored.files[0]
        if (was.bytes, was.xxh3_128) == (made.bytes, made.xxh3_128):
            return newest
    return newest + 1


def _write_columns(path: Path, columns: Columns) -> Stored:
    layouts = [
        ArrayLayout(name, str(column.dtype), column.shape, _dimensions(name, column))
        for name, column in sorted(columns.items())
    ]
    extents = lay_out(path, "hdf5", layouts)
    for layout in layouts:
        if layout.bytes:
            arrays.fill(path, extents[layout.name].offset, columns[layout.name])
    return arrays.describe(path, path.name, layouts, extents)


def _dimensions(name: str, column: Column) -> tuple[str, ...]:
    return (f"{name}_index", "key_byte")[: column.ndim]


def _content(columns: Columns, rest: dict[str, Any]) -> str:
    digest = hashlib.sha256(canonical_json(rest))
    for name, column in sorted(columns.items()):
        head = f"{name}:{column.dtype}:{list(column.shape)}"
        digest.update(len(head).to_bytes(8, "little") + head.encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


class _StoredColumns:
    """The columns of a split, each checked as it is read."""

    def __init__(self, folder: Path, record: SplitRecord) -> None:
        self.folder, self.record = folder, record

    def column(self, name: str) -> Column:
        return read_array(self.folder, self.record, name)

    def lazy_texts(self, name: str) -> arrays.Texts:
        joined, edges = self.column(f"{name}_bytes"), self.column(f"{name}_offsets")
        check_texts(joined, edges, self._what(f"{name}_offsets"))
        return arrays.Texts(joined, edges)

    def texts(self, name: str) -> list[str]:
        return list(self.lazy_texts(name))

    def positions_in(self, name: str, count: int, *, none: bool = True) -> Column:
        found = self.column(name)
        check_positions(found, count, self._what(name), none=none)
        return found

    def edges_of(self, name: str, elements: Column, *, least: int = 0) -> Column:
        found = self.column(name)
        check_edges(found, len(elements), self._what(name), least=least)
        return found

    def ids(self, name: str) -> Column:
        if name in self.record.arrays:
            return self.column(name)
        return np.array(self.texts(name), dtype=object)

    def _what(self, name: str) -> str:
        return f"{self.folder / self.record.path(name)}: {name}"


def read_split(folder: Path, record: SplitRecord) -> Split:
    """Read the columns that a record describes. Raises DamagedError: a file differs from the
    record, or positions and offsets in it lead nowhere."""
    stored = _StoredColumns(folder, record)
    image_keys, question_keys = stored.column("image_keys"), stored.column("question_keys")
    answer_texts = stored.texts("answer_text")
    answers = stored.positions_in("answers", len(answer_texts), none=False)
    question_types, answer_types = (
        stored.texts("question_type_text"),
        stored.texts("answer_type_text"),
    )
    positions, image_lists = stored.positions_in("image_positions", len(image_keys)), None
    if "image_offsets" in record.arrays:
        image_lists = (positions, stored.edges_of("image_offsets", positions, least=1))
        positions = positions[image_lists[1][:-1]]
    return Split(
        name=record.name,
        digest=record.content[:32],
        annotated=record.annotated,
        limit=record.limit,
        skipped=record.skipped,
        question_id=stored.ids("question_id"),
        image_id=stored.ids("image_id"),
        image_keys=image_keys,
        image_positions=positions,
        image_lists=image_lists,
        question_keys=question_keys,
        question_positions=stored.positions_in(
            "question_positions", len(question_keys), none=False
        ),
        question_texts=stored.lazy_texts("question_text"),
        answer_texts=answer_texts,
        answer=stored.positions_in("answer", len(answer_texts)),
        answers=answers,
        answers_offsets=stored.edges_of("answers_offsets", answers),
        question_types=question_types,
        question_type=stored.positions_in("question_type", len(question_types)),
        answer_types=answer_types,
        answer_type=stored.positions_in("answer_type", len(answer_types)),
    )
