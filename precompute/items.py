"""From a dataset to what has to be encoded: examples as columns, distinct images and texts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data.answers import normalise
from data.example import Dataset, DatasetError, Example, Problem, report
from data.images import is_of_the_file
from data.members import container, open_member
from precompute.errors import ItemError, ShortageError
from vqa_cache.arrays import text_arrays
from vqa_cache.examples import Columns
from vqa_cache.keys import content_key, nfc, pack_keys, text_key
from vqa_cache.memo import Memo, Stat, file_stat, is_settled
from vqa_cache.records.split import Skipped
from vqa_cache.system.lines import one_line


class Positions:
    """Distinct things in order of first appearance, each with its position."""

    def __init__(self) -> None:
        self.positions: defaultdict[Any, int] = defaultdict()
        self.positions.default_factory = self.positions.__len__
        # the thing's position, new or known; no function of ours, since it is asked for millions
        self.add: Callable[[Any], int] = self.positions.__getitem__

    def __iter__(self) -> Iterator[Any]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)


@dataclass
class Wanted:
    """Items to encode, key -> source, in order of first appearance: an image file's path or a text
    in NFC."""

    images: dict[bytes, str] = field(default_factory=dict)
    questions: dict[bytes, str] = field(default_factory=dict)
    answers: dict[bytes, str] = field(default_factory=dict)


@dataclass
class SplitColumns:
    """One split, ready for `vqa_cache.examples.write_split`."""

    name: str
    columns: Columns
    examples: int
    annotated: bool
    skipped: list[Skipped]
    empty_answers: int


def collect_split(
    dataset: Dataset,
    split: str,
    *,
    limit: int | None,
    skip_errors: bool,
    hashing: ImageHashing,
    wanted: Wanted,
) -> SplitColumns:
    """Read a split, hash its images, add its distinct items to `wanted`.

    Args:
        limit: at most this many examples, the first ones.
        skip_errors: leave out bad examples and missing images, and say so in `skipped`.

    Raises:
        DatasetError, ItemError: the first bad example or missing image, without `skip_errors`.
    """
    problems: list[Problem] | None = [] if skip_errors else None
    examples = _readable(dataset, split, limit, problems)
    if not examples and not problems:
        raise DatasetError(f"{dataset.name}: split {split!r} has no examples under {dataset.root}")
    skipped = [Skipped("example", problem.question_id, problem.what) for problem in problems or []]
    paths = list(dict.fromkeys(path for example in examples for path in example.images))
    keys: dict[str, bytes] = {}
    for path, key, error in hashing.hash_all(dataset.root, paths):
        if key is not None:
            keys[path] = key
            wanted.images.setdefault(key, str(dataset.root / path))
        elif skip_errors:
            shown = path.encode(errors="backslashreplace").decode()
            skipped.append(Skipped("image", shown, error))
        else:
            raise ItemError(
                f"{dataset.name}/{split}: image {one_line(dataset.root / path)}: {error}; "
                "to leave such images out: --on-error skip"
            )
    for text in dict.fromkeys(example.question for example in examples):
        question = nfc(text)
        wanted.questions.setdefault(text_key(question), question)
    for text in dict.fromkeys(_answers(examples)):
        for form in (text, normalise(text)):
            wanted.answers.setdefault(text_key(form), nfc(form))
    return SplitColumns(
        name=split,
        columns=_columns(examples, keys),
        examples=len(examples),
        annotated=dataset.annotated(split),
        skipped=skipped,
        empty_answers=sum(not answer for example in examples for answer in example.answers),
    )


def _readable(
    dataset: Dataset, split: str, limit: int | None, problems: list[Problem] | None
) -> list[Example]:
    """The first examples of a split, but for those with texts that no encoder could be given."""
    examples = []
    for example in islice(dataset.examples(split, problems), limit):
        if _is_unicode(example):
            examples.append(example)
        else:
            report(
                problems,
                example.question_id,
                f"{dataset.name}/{split}: question {example.question_id!r}: a text is not valid "
                "Unicode (a lone surrogate); mend the file",
            )
    return examples


def _answers(examples: list[Example]) -> Iterator[str]:
    """Every annotator's answer and the majority one, example after example."""
    for example in examples:
        yield from example.answers
        if example.answer is not None:
            yield example.answer


def _is_unicode(example: Example) -> bool:
    texts = (example.question, example.answer or "", *example.answers)
    types = (example.question_type or "", example.answer_type or "")
    ids = map(str, (example.question_id, *example.image_ids))
    try:
        "".join((*texts, *types, *ids)).encode()
    except UnicodeEncodeError:
        return False
    return True


class ImageHashing:
    """Content keys of image files, remembered while size, time and inode stay the same."""

    def __init__(self, memo: Memo, *, workers: int, rehash: bool) -> None:
        self._memo = memo
        self._known = {} if rehash else memo.image_keys()
        self._workers = workers

    def hash_all(self, root: Path, paths: list[str]) -> Iterator[tuple[str, bytes | None, str]]:
        """Yield (path, key, "") or (path, None, error) in order."""
        new: list[tuple[str, Stat, bytes]] = []
        base = root.resolve()

        def one(path: str) -> tuple[str, bytes | None, str]:
            file = str(base / path)
            try:
                stat = file_stat(container(file))
                known = self._known.get(file)
                if known is not None and known[0] == stat:
                    return path, known[1], ""
                settled = is_settled(stat)
                with open_member(file) as picture:
                    key = content_key(picture)
            except OSError as error:
                if not is_of_the_file(error):
                    raise ShortageError.of(f"image {file}", error) from error
                return path, None, f"cannot be read ({error.strerror})"
            except ValueError:
                return path, None, "cannot be read (not a path that a file can have)"
            if settled:
                new.append((file, stat, key))
            return path, key, ""

        with ThreadPoolExecutor(self._workers) as pool:
            yield from pool.map(one, paths, chunksize=64)
        self._memo.remember_images(new)


def _columns(examples: list[Example], keys: dict[str, bytes]) -> Columns:
    """The arrays of FORMAT.md section 5."""
    images, questions, answers = Positions(), Positions(), Positions()
    question_types, answer_types = Positions(), Positions()
    image_lists: list[list[int]] = []
    question_positions, majority = [], []
    every: list[int] = []
    edges = [0]
    types: list[tuple[int, int]] = []
    for example in examples:
        found = [keys.get(path) for path in example.images]
        image_lists.append([-1 if key is None else images.add(key) for key in found])
        question_positions.append(questions.add(nfc(example.question)))
        majority.append(-1 if example.answer is None else answers.add(example.answer))
        every += map(answers.add, example.answers)
        edges.append(len(every))
        types.append(
            (
                _type_code(question_types, example.question_type),
                _type_code(answer_types, example.answer_type),
            )
        )
    type_codes = np.array(types, dtype=np.int32).reshape(-1, 2)
    return {
        **_id_columns("question_id", _question_ids(examples)),
        **_id_columns("image_id", [example.image_ids[0] for example in examples]),
        **_image_columns(image_lists),
        "image_keys": pack_keys(list(images)),
        "question_keys": pack_keys([text_key(text) for text in questions]),
        "question_positions": np.array(question_positions, dtype=np.int32),
        **text_arrays("question_text", list(questions)),
        **text_arrays("answer_text", list(answers)),
        "answer": np.array(majority, dtype=np.int32),
        "answers": np.array(every, dtype=np.int32),
        "answers_offsets": np.array(edges, dtype=np.int64),
        "question_type": np.ascontiguousarray(type_codes[:, 0]),
        "answer_type": np.ascontiguousarray(type_codes[:, 1]),
        **text_arrays("question_type_text", list(question_types)),
        **text_arrays("answer_type_text", list(answer_types)),
    }


def _type_code(types: Positions, name: str | None) -> int:
    return -1 if name is None else types.add(name)


def _image_columns(lists: list[list[int]]) -> Columns:
    flat = np.array([position for images in lists for position in images], dtype=np.int32)
    if all(len(images) == 1 for images in lists):
        return {"image_positions": flat}
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(images) for images in lists], out=offsets[1:])
    return {"image_positions": flat, "image_offsets": offsets}


def _question_ids(examples: list[Example]) -> list[int | str]:
    """Ids as given; a missing one is a stable hash of image, question and ordinal, of 53 bits: a
    larger integer is rounded by whatever reads JSON numbers as float64 (JavaScript, jq)."""
    seen: dict[tuple[str, str], int] = {}
    ids: list[int | str] = []
    for example in examples:
        pair = ("\n".join(example.images), example.question)
        ordinal = seen.get(pair, 0)
        seen[pair] = ordinal + 1
        if example.question_id is not None:
            ids.append(example.question_id)
            continue
        text = "\0".join([*pair, str(ordinal)])
        head = hashlib.sha256(text.encode()).digest()[:8]
        ids.append(int.from_bytes(head, "big") >> 11)
    return ids


def _id_columns(name: str, ids: list[int | str]) -> Columns:
    if all(type(value) is int and -(2**63) <= value < 2**63 for value in ids):
        return {name: np.array(ids, dtype=np.int64)}
    return text_arrays(name, [str(value) for value in ids])
