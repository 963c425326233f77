"""One command that writes a cache, disturbed in some way and given again until it is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import vqa_cache
from benchmarks.measuring.warm import Finished, Warm
from vqa_cache.dtypes import raw_rows
from vqa_cache.errors import CacheError
from vqa_cache.tools.verify import verify

Files = dict[str, bytes]
Rows = dict[tuple[str, bytes], bytes]  # (table, key) -> the row's bytes
CACHE = "cache"  # its name in the folder that a scenario works in


@dataclass(frozen=True)
class Finding:
    """Something that ought not to be.

    Attributes:
        kind: `rows_lost`, `rows_wrong`, `bytes_differ`, `not_done`, `unclean`, `told_badly`, …
        what: scenario, fault and what was found, in a line.
        count: of rows, where rows are counted.
    """

    kind: str
    what: str
    count: int = 1


@dataclass(frozen=True)
class Scenario:
    """A command that works on the cache `cache` in a folder of its own.

    Attributes:
        name: of the kind of work.
        command: what follows `python -m <module>`; `{place}` stands for the folder.
        module: whose command it is.
        start: a folder that holds the cache as it is before; None: no cache.
        how: of `Warm.start`.
        mends: whether what it begins with is damaged.
        files: of the cache when nothing disturbed it, see `kept`.
        rows: that it serves then.
        steady: those of them that are served before, and so have to be all the while.
        operations: the calls that the undisturbed command made.
        seconds: that it took.
    """

    name: str
    command: tuple[str, ...]
    module: str = "precompute"
    start: Path | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    mends: bool = False
    files: Files = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    steady: Rows = field(default_factory=dict)
    operations: tuple[str, ...] = ()
    seconds: float = 0.0

    def words(self, place: Path, *more: str) -> list[str]:
        """The command's words in a folder."""
        return [word.replace("{place}", str(place)) for word in (*self.command, *more)]

    @contextmanager
    def begun(self, folder: Path) -> Iterator[Path]:
        """A folder, below `folder`, in the state before the command; deleted at the end."""
        place = Path(mkdtemp(prefix=f"{self.name}-", dir=folder))
        try:
            if self.start is not None:
                shutil.copytree(self.start, place, dirs_exist_ok=True)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def undisturbed(self, warm: Warm, folder: Path) -> Scenario:
        """The same with what the command leaves and does when nothing disturbs it."""
        with self.begun(folder) as place:
            began = time.monotonic()
            done = self.run(warm, place, count=1)
            seconds = time.monotonic() - began
            if done.status:
                raise RuntimeError(f"{self.name}: exit code {done.status}: {done.stderr[-2000:]}")
            before, rows = {}, rows_of(place / CACHE)
            if self.start is not None and not self.mends:
                before = rows_of(self.start / CACHE)
            return replace(
                self,
                files=kept(place / CACHE),
                rows=rows,
                steady={key: row for key, row in rows.items() if key in before},
                operations=tuple(done.operations),
                seconds=seconds,
            )

    def run(self, warm: Warm, place: Path, *more: str, **how: Any) -> Finished:
        """The command to its end."""
        seen = {"watch": str(place)} if how else {}
        words = self.words(place, *more)
        return warm(*words, module=self.module, **{**self.how, **seen, **how})

    def complete(self, warm: Warm, place: Path, fault: str) -> list[Finding]:
        """The same command again; what is wrong afterwards."""
        done = self.run(warm, place)
        where = f"{self.name}, {fault}"
        if done.status:
            told = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            return [Finding("not_done", f"{where}: again: exit code {done.status}: {told}")]
        found = differences(self.files, kept(place / CACHE), where)
        left = [str(path.relative_to(place)) for path in place.rglob(".tmp-*")]
        if left:
            found.append(Finding("unclean", f"{where}: left for good: {left[:3]}"))
        return found + unclean(place / CACHE, where)


def kept(cache: Path) -> Files:
    """Every file that is part of a cache, by its place in it; the memo, which may be deleted at any
    time, and unfinished work are none."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and "/.tmp-" not in str(path) and not path.name.startswith("memo.")
    }


def differences(expected: Files, found: Files, where: str) -> list[Finding]:
    """A finding for files that are missing, too many, or of other bytes."""
    differing = [
        f"{name} {'differs' if name in found and name in expected else state}"
        for names, state in ((expected, "is missing"), (found, "is too many"))
        for name in sorted(names)
        if expected.get(name) != found.get(name)
    ]
    if not differing:
        return []
    listed = "; ".join(dict.fromkeys(differing[:4]))
    return [Finding("bytes_differ", f"{where}: {listed}", len(set(differing)))]


def unclean(cache: Path, where: str) -> list[Finding]:
    """A finding for what `vqa-cache verify` reports."""
    try:
        problems = list(verify(vqa_cache.open(cache)))
    except CacheError as error:
        problems = [str(error)]
    if not problems:
        return []
    return [Finding("unclean", f"{where}: verify: {problems[0]}", len(problems))]


def rows_of(cache: Path) -> Rows:
    """Every row that a reader is served. Raises CacheError."""
    found: Rows = {}
    for table in vqa_cache.open(cache).tables.values():
        keys = [key.tobytes() for key in table.keys]
        rows = [table[key] for key in keys] if table.ragged else list(table.tensor())
        for key, row in zip(keys, rows, strict=True):
            found[table.id, key] = raw_rows(row).tobytes()
    return found


def wrong_rows(cache: Path, right: Rows, there: Rows, where: str) -> list[Finding]:
    """Findings for rows that are not what they ought to be, and for those of `there` that are
    gone.

    Args:
        right: every row that may be there.
        there: the rows that have to be there.
    """
    if not (cache / "CACHE.json").exists():
        lost = len(there)
        return [Finding("rows_lost", f"{where}: no cache", lost)] if lost else []
    try:
        found = rows_of(cache)
    except CacheError as error:
        return [Finding("rows_wrong", f"{where}: a reader is told: {error}")]
    except Exception as error:
        return [Finding("rows_wrong", f"{where}: a reader meets {type(error).__name__}: {error}")]
    findings = []
    wrong = sum(right.get(key) != row for key, row in found.items())
    if wrong:
        findings.append(Finding("rows_wrong", f"{where}: {wrong} rows are wrong", wrong))
    lost = sum(key not in found for key in there)
    if lost:
        findings.append(Finding("rows_lost", f"{where}: {lost} rows are gone", lost))
    return findings
