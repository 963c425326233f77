"""The power goes: what a disk may hold afterwards, modelled over the calls that a command made.

A file's bytes are durable once the file is synced, a folder's names once the folder is; a rename
within a folder is one change. When the power goes, each file holds any of the contents that it has
had since its last sync, or a part of the newest one, or zeros; each folder any of the lists of
names that it has had since its own. What a synced folder names and nobody synced is an empty file.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.faults.ground import Ground
from benchmarks.faults.scenario import CACHE, Finding, Scenario, wrong_rows
from benchmarks.measuring.file_calls import JOURNAL

_BLOCK = 512  # bytes that a disk writes as a whole
State = dict[str, bytes | None]  # path -> bytes; None: a folder


@dataclass
class _Object:
    """A file or a folder: what it was at its last sync, and everything that it has been since."""

    folder: bool
    versions: list[object] = field(default_factory=list)

    def now(self, value: object) -> None:
        if value != self.versions[-1]:
            self.versions.append(value)


class Disk:
    """What may be on the disk after each call of a journal."""

    def __init__(self, record: Path) -> None:
        """Args: record: the folder that `FileCalls` recorded into."""
        self._record = record
        self._objects: list[_Object] = []
        self._by_inode: dict[int, int] = {}

    def moments(self) -> Iterator[str]:
        """Go through the calls; the name of each, after it was taken in."""
        first = True
        for line in (self._record / JOURNAL).read_text().splitlines():
            step = json.loads(line)
            self._take(step["tree"], durable=first)
            if step["synced"] in self._by_inode:
                one = self._objects[self._by_inode[step["synced"]]]
                del one.versions[:-1]
            first = False
            yield step["call"]

    def _take(self, tree: dict[str, tuple[int, str | None]], *, durable: bool) -> None:
        alive = {inode for inode, _ in tree.values()}
        self._by_inode = {i: one for i, one in self._by_inode.items() if i in alive}
        for inode, digest in tree.values():
            if inode not in self._by_inode:
                self._by_inode[inode] = len(self._objects)
                nothing: object = {} if digest is None else ""
                self._objects.append(_Object(digest is None, [nothing]))
        names: dict[str, dict[str, int]] = {path: {} for path, (_, d) in tree.items() if d is None}
        for path, (inode, _) in tree.items():
            if path:
                folder, _, name = path.rpartition("/")
                names[folder][name] = self._by_inode[inode]
        for path, (inode, digest) in tree.items():
            one = self._objects[self._by_inode[inode]]
            one.now(names[path] if digest is None else digest)
            if durable:
                del one.versions[:-1]

    def synced(self) -> State:
        """What is there when everything is lost that may be."""
        return self._state(lambda one: one.versions[0], torn=None)

    def drawn(self, draw: random.Random) -> State:
        """What is there when each file and each folder fares in its own way."""
        return self._state(lambda one: draw.choice(one.versions), torn=draw)

    def _state(self, choose: Callable[[_Object], object], torn: random.Random | None) -> State:
        found: State = {}
        chosen: dict[int, object] = {}

        def content(number: int) -> bytes:
            one = self._objects[number]
            if number not in chosen:
                chosen[number] = choose(one)
            whole = self._bytes(str(chosen[number]))
            if torn is None or chosen[number] == one.versions[0] or torn.random() < 0.5:
                return whole
            end = torn.randrange(len(whole) // _BLOCK + 1) * _BLOCK
            return whole[:end] + (bytes(len(whole) - end) if torn.random() < 0.5 else b"")

        def walk(number: int, path: str) -> None:
            if number not in chosen:
                chosen[number] = choose(self._objects[number])
            names = chosen[number]
            assert isinstance(names, dict)
            for name, child in names.items():
                below = f"{path}/{name}" if path else name
                if self._objects[child].folder:
                    found[below] = None
                    walk(child, below)
                else:
                    found[below] = content(child)

        walk(0, "")
        return found

    def _bytes(self, digest: str) -> bytes:
        return (self._record / digest).read_bytes() if digest else b""


@dataclass(frozen=True)
class Loss:
    """A state that the disk may be in, and how it came to be."""

    scenario: Scenario
    state: State
    what: str
    finished: bool


def losses(ground: Ground, scenario: Scenario, states: int, draw: random.Random) -> list[Loss]:
    """Distinct states after a power loss amid one piece of work, spread over its calls: at most so
    many. The last ones are those after its end."""
    record = Path(mkdtemp(prefix="record-", dir=ground.folder))
    found: dict[str, Loss] = {}
    with scenario.begun(ground.folder) as place:
        done = scenario.run(ground.warm, place, record=str(record))
        if done.status:
            raise RuntimeError(f"{scenario.name}: {done.stderr[-2000:]}")
    disk = Disk(record)
    total = (record / JOURNAL).read_bytes().count(b"\n")
    each = max(1, round(1.5 * states / total))  # some are alike
    for number, call in enumerate(disk.moments()):
        finished = number == total - 1
        drawn = [disk.drawn(draw) for _ in range(each)]
        for state in (disk.synced(), *drawn):
            what = f"power lost after call {number} ({call}) of {total}"
            loss = Loss(scenario, state, what, finished)
            found.setdefault(_digest(state), loss)
    shutil.rmtree(record)
    losses = list(found.values())
    last = [loss for loss in losses if loss.finished]
    amid = [loss for loss in losses if not loss.finished]
    draw.shuffle(amid)
    return (last + amid)[:states]


def check(ground: Ground, loss: Loss) -> list[Finding]:
    """Lay the state out, look at what a reader is served, give the command again, compare."""
    scenario = loss.scenario
    place = Path(mkdtemp(prefix="lost-", dir=ground.folder))
    try:
        for path, content in loss.state.items():
            if content is None:
                (place / path).mkdir(parents=True, exist_ok=True)
            else:
                (place / path).write_bytes(content)
        where = f"{scenario.name}, {loss.what}"
        findings = []
        if loss.finished or not scenario.mends:
            there = scenario.rows if loss.finished else scenario.steady
            findings = wrong_rows(place / CACHE, ground.right, there, where)
        return findings + scenario.complete(ground.warm, place, loss.what)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _digest(state: State) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(state.items()):
        digest.update(path.encode() + b"\0" + hashlib.sha256(content or b"").digest())
    return digest.hexdigest()
