"""Ways in which the files of a cache come to harm."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.file_calls import kind_of
from vqa_cache.keys import canonical_json, json_digest

_NO_DATA = (
    "memo",
    "commands",
)  # may be deleted at any time: nothing that is served depends on them


@dataclass(frozen=True)
class Damage:
    """What happens to one file, or to a few.

    Attributes:
        name: of the way.
        path: of the file, below the cache.
        seed: of what is drawn.
    """

    name: str
    path: str
    seed: int

    @property
    def what(self) -> str:
        """For people."""
        return f"{self.path} {self.name}"

    def inflict(self, cache: Path, foreign: Path) -> bool:
        """Do it; False where it leaves every byte as it was, or suits no such file.

        Args:
            foreign: another cache with the same tables, of another dataset.
        """
        return WAYS[self.name](cache, self.path, foreign, random.Random(self.seed))


def plan(cache: Path, count: int, draw: random.Random) -> Iterator[Damage]:
    """So many damages, of every kind of file in turn and in every way in turn."""
    kinds: dict[str, list[str]] = {}
    for path in sorted(cache.rglob("*")):
        if path.is_file() and path.name.partition(".")[0] not in _NO_DATA:
            name = str(path.relative_to(cache))
            kinds.setdefault(kind_of(name), []).append(name)
    planned = 0
    while True:
        for way in WAYS:
            for paths in kinds.values():
                if planned == count:
                    return
                planned += 1
                yield Damage(way, draw.choice(paths), draw.randrange(2**32))


def _flip(cache: Path, name: str, _foreign: Path, draw: random.Random) -> bool:
    content = bytearray((cache / name).read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return _put(cache / name, bytes(content))


def _zero(cache: Path, name: str, _foreign: Path, draw: random.Random) -> bool:
    content = (cache / name).read_bytes()
    first = draw.randrange(len(content))
    last = min(len(content), first + draw.randrange(1, 4097))
    return _put(cache / name, content[:first] + bytes(last - first) + content[last:])


def _truncate(cache: Path, name: str, _foreign: Path, draw: random.Random) -> bool:
    content = (cache / name).read_bytes()
    return _put(cache / name, content[: draw.randrange(len(content))])


def _empty(cache: Path, name: str, _foreign: Path, _draw: random.Random) -> bool:
    return _put(cache / name, b"")


def _append(cache: Path, name: str, _foreign: Path, draw: random.Random) -> bool:
    return _put(cache / name, (cache / name).read_bytes() + draw.randbytes(draw.randrange(1, 99)))


def _append_blanks(cache: Path, name: str, _foreign: Path, _draw: random.Random) -> bool:
    return _put(cache / name, (cache / name).read_bytes() + b" \n")


def _remove(cache: Path, name: str, _foreign: Path, _draw: random.Random) -> bool:
    (cache / name).unlink()
    return True


def _remove_with_sisters(cache: Path, name: str, _foreign: Path, _draw: random.Random) -> bool:
    """A shard goes with its record, columns with theirs, a table's record with its seal, anything
    else with its folder."""
    path = cache / name
    top = next((one for one in path.parents if one.suffix == ".zarr"), path)
    if top.parent.name in ("shards", "records"):
        for part, suffix in (("records", ".json"), ("shards", ".h5"), ("shards", ".zarr")):
            _delete(top.parent.parent / part / (top.stem + suffix))
    elif path.parent == cache:
        return False
    elif "examples" in path.parts:
        for one in path.parent.glob(f"{path.stem}.*"):
            one.unlink()
    elif path.name in ("table.json", "seal.json"):
        for record in ("table.json", "seal.json"):
            (path.parent / record).unlink(missing_ok=True)
    else:
        _delete(path.parent)
    return True


def _swap(cache: Path, name: str, _foreign: Path, draw: random.Random) -> bool:
    """Exchanged with a sister: a file of its kind in this cache."""
    sisters = [one for one in _of_kind(cache, name) if one != name]
    if not sisters:
        return False
    other = cache / draw.choice(sisters)
    here, there = (cache / name).read_bytes(), other.read_bytes()
    other.write_bytes(here)
    return _put(cache / name, there)


def _foreign(cache: Path, name: str, foreign: Path, draw: random.Random) -> bool:
    """Replaced by a file of its kind in another cache."""
    strangers = _of_kind(foreign, name)
    return bool(strangers) and _put(cache / name, (foreign / draw.choice(strangers)).read_bytes())


def _add_foreign(cache: Path, name: str, foreign: Path, draw: random.Random) -> bool:
    """A file of another cache is added without what belongs to it; with it, it would be as good as
    if this cache's writer had put it there."""
    strangers = [one for one in _of_kind(foreign, name) if not (cache / one).exists()]
    if not strangers:
        return False
    one = Path(draw.choice(strangers))
    top = next((part for part in one.parents if part.suffix == ".zarr"), one)
    (cache / top).parent.mkdir(parents=True, exist_ok=True)
    if (foreign / top).is_dir():
        shutil.copytree(foreign / top, cache / top)
    else:
        shutil.copyfile(foreign / top, cache / top)
    return True


def _newer(cache: Path, name: str, _foreign: Path, _draw: random.Random) -> bool:
    """Of a later version of the format, its digest being right."""
    if not name.endswith(".json") or ".zarr/" in name:
        return False
    record = json.loads((cache / name).read_bytes())
    record = {key: value for key, value in record.items() if key != "digest"} | {"version": 99}
    return _put(cache / name, canonical_json(record | {"digest": json_digest(record)}) + b"\n")


WAYS: dict[str, Callable[[Path, str, Path, random.Random], bool]] = {
    "with a bit flipped": _flip,
    "with zeros in it": _zero,
    "truncated": _truncate,
    "empty": _empty,
    "with bytes appended": _append,
    "with blanks appended": _append_blanks,
    "removed": _remove,
    "removed with its sisters": _remove_with_sisters,
    "swapped": _swap,
    "foreign": _foreign,
    "joined by a foreign one": _add_foreign,
    "newer": _newer,
}


def _put(path: Path, content: bytes) -> bool:
    if path.read_bytes() == content:
        return False
    path.write_bytes(content)
    return True


def _of_kind(cache: Path, name: str) -> list[str]:
    kind = kind_of(name)
    found = (str(path.relative_to(cache)) for path in sorted(cache.rglob("*")) if path.is_file())
    return [one for one in found if kind_of(one) == kind]


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
