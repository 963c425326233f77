"""What to type where a cache is damaged or lacks something: the command of stage 1 that filled it,
which `commands.jsonl` remembers (FORMAT.md section 8)."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vqa_cache.commit import cache_root, committing
from vqa_cache.errors import CacheError
from vqa_cache.keys import canonical_json, json_digest
from vqa_cache.records.record import read_record
from vqa_cache.records.table import Modality, SpecRecord
from vqa_cache.system.durable import write_file

FILE = "commands.jsonl"
_MOST = 100  # commands
_LARGEST = 2**20  # bytes that are read: it is a hint, which anybody may have written
_UNKNOWN = "the command of stage 1 that filled it"


@dataclass(frozen=True)
class Filling:
    """What one command of stage 1 put into a cache.

    Attributes:
        dataset: the adapter.
        name: what the cache calls the dataset.
        root: its folder, absolute; None where the adapter knows it.
        image, text, answer_text: encoder specs.
        options: further words, such as "--on-error skip", that belong to what was put there.
    """

    dataset: str
    name: str
    root: str | None
    image: tuple[str, ...]
    text: tuple[str, ...]
    answer_text: tuple[str, ...]
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, line: bytes) -> Filling:
        """Raises ValueError, TypeError or KeyError: it is none."""
        fields: dict[str, Any] = json.loads(line)
        if fields.pop("digest") != json_digest(fields):
            raise ValueError("it was changed: advice that may be wrong is none")
        dataset, name, root = (fields[key] for key in ("dataset", "name", "root"))
        image, text, answer_text, options = (
            tuple(fields[key]) for key in ("image", "text", "answer_text", "options")
        )
        words = (dataset, name, root or "", *image, *text, *answer_text, *options)
        if not all(isinstance(word, str) for word in words):
            raise TypeError(line)
        return cls(dataset, name, root, image, text, answer_text, options)

    def fills(self, modality: str, records: list[SpecRecord]) -> bool:
        """Whether one of its encoders is among those that resolved to a table."""
        from vqa_cache.spec import each_tap, parse_spec  # loads much, and errors are rare

        kind: Modality = "image" if modality == "image" else "text"
        texts = self.image if kind == "image" else (*self.text, *self.answer_text)
        stored = [record.spec for record in records]
        return any(
            parse_spec(one).with_default_tap(kind).portable() in stored
            for text in texts
            for one in each_tap(text)
        )

    def source(self) -> list[str]:
        """The options that name the dataset."""
        root = ["--root", shown(self.root)] if self.root else []
        name = [] if self.name == self.dataset else ["--name", self.name]
        return ["--dataset", self.dataset, *root, *name]

    def command(self, cache: Path, *more: str) -> str:
        """The command, which can be pasted."""
        encoders = [
            word
            for option in ("image", "text", "answer_text")
            for spec in getattr(self, option)
            for word in (f"--{option.replace('_', '-')}", spec)
        ]
        words = [*self.source(), *cache_option(cache), *encoders, *self.options, *more]
        return f"python -m precompute {shlex.join(words)}"


def remember(cache: Path, filling: Filling) -> None:
    """Note what fills a cache, as the last of the commands that are noted."""
    fields = asdict(filling)
    path, line = cache / FILE, canonical_json({**fields, "digest": json_digest(fields)}) + b"\n"
    with committing(path):
        lines = [one for one in _lines(cache) if one != line]
        if _lines(cache)[-1:] != [line]:
            write_file(path, b"".join([*lines, line][-_MOST:]))


def _lines(cache: Path) -> list[bytes]:
    with suppress(OSError), (cache / FILE).open("rb") as file:
        return file.read(_LARGEST).splitlines(keepends=True)
    return []


def fillings(cache: Path) -> Iterator[Filling]:
    """What filled a cache, the last command first."""
    for line in reversed(_lines(cache)):
        with suppress(ValueError, TypeError, KeyError, CacheError):
            yield Filling.parse(line)


def remedy(path: Path) -> str:
    """The command that mends a damaged file of a cache, as far as the cache knows it."""
    with suppress(CacheError, OSError, ValueError):
        root = cache_root(path)
        parts = path.absolute().relative_to(root.absolute()).parts
        if parts[0] == "examples":
            named = [filling for filling in fillings(root) if filling.name == parts[1]]
            return _widest(named).command(root) if named else _UNKNOWN
        records = _specs(root.joinpath(*parts[:5]))
        if found := [one for one in fillings(root) if one.fills(parts[1], records)]:
            return _widest(found).command(root, "--repair")
    return f"{_UNKNOWN}, with --repair"


def _widest(found: list[Filling]) -> Filling:
    """The last command that took everything, else the last one: one that was limited may not have
    the items of a damaged shard."""
    return min(found, key=lambda one: bool({"--limit", "--splits"} & set(one.options)))


def _specs(table: Path) -> list[SpecRecord]:
    found = []
    for path in sorted((table / "specs").glob("*.json")):
        with suppress(CacheError, OSError):
            found.append(read_record(path, SpecRecord))
    return found


def completed(command: str, cache: Path, dataset: str) -> str:
    """A command of stage 1 that names an experiment, with the cache and with the folder of the
    dataset, where one was given when it was filled."""
    words = cache_option(cache)
    for filling in fillings(cache):
        if filling.name == dataset:
            words = [*(filling.source() if filling.root else []), *words]
            break
    return " ".join(filter(None, (command, shlex.join(words))))


def cache_option(cache: Path) -> list[str]:
    """`--cache FOLDER`; nothing where it is the one that commands take by themselves."""
    folder = shown(cache)
    return [] if folder == "cache" else ["--cache", folder]


def shown(path: str | Path) -> str:
    """A path as one types it here: relative where it lies below the working folder."""
    absolute = os.path.abspath(path)
    inside = os.path.relpath(absolute)
    return absolute if inside.startswith(os.pardir) else inside
