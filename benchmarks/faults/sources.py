"""The dataset changes between two runs: images go, are replaced or cut short, lines are put in
another order, the whole of it moves."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import vqa_cache
from benchmarks.faults.ground import Ground
from benchmarks.faults.scenario import CACHE, Finding, Scenario, rows_of, unclean
from benchmarks.inputs.pictures import VIT, write_images
from vqa_cache.keys import image_key


@dataclass(frozen=True)
class Change:
    """One change to be."""

    name: str
    seed: int


def schedule(count: int, draw: random.Random) -> list[Change]:
    """So many changes, of every kind in turn."""
    names = list(CHANGES)
    return [Change(names[n % len(names)], draw.randrange(2**32)) for n in range(count)]


def change(ground: Ground, one: Change) -> list[Finding]:
    """Encode a part, change the dataset, encode the rest: every image that is there has the rows of
    its own bytes, as a cache made from nothing has them."""
    place = Path(mkdtemp(prefix="changed-", dir=ground.folder))
    draw = random.Random(one.seed)
    try:
        data = Path(shutil.copytree(ground.data, place / "data"))
        skip = ("--image", VIT, "--on-error", "skip")
        part = Scenario("part", ground.stage_1(*skip, "--limit", "3", data=data))
        if done := part.run(ground.warm, place).status:
            return [Finding("not_done", f"{one.name}: first run: exit code {done}")]
        data = CHANGES[one.name](data, draw) or data
        whole = Scenario("whole", ground.stage_1(*skip, data=data))
        done_again = whole.run(ground.warm, place)
        fresh = place / "fresh"
        fresh.mkdir()
        if done_again.status or whole.run(ground.warm, fresh).status:
            told = done_again.stderr.strip().splitlines()[-1:]
            return [Finding("not_done", f"{one.name}: second run: {told}")]
        expected, found = rows_of(fresh / CACHE), rows_of(place / CACHE)
        findings = unclean(place / CACHE, one.name)
        wrong = [key for key, row in expected.items() if found.get(key) != row]
        if wrong:
            what = f"dataset {one.name} between two runs: {len(wrong)} rows are missing or wrong"
            findings.append(Finding("rows_wrong", what, len(wrong)))
        return findings + _keys(place / CACHE, data, one.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _keys(cache: Path, data: Path, name: str) -> list[Finding]:
    """The examples name the images by what is in the files now."""
    now = {image_key(str(path)).hex() for path in (data / "images").iterdir()}
    opened = vqa_cache.open(cache)
    said = {key for split in opened.splits for key in opened.examples(split)["image_key"].dropna()}
    strangers = said - now
    what = f"dataset {name} between two runs: {len(strangers)} keys are of no image that is there"
    return [Finding("rows_wrong", what, len(strangers))] if strangers else []


def _any_image(data: Path, draw: random.Random) -> Path:
    return data / "images" / draw.choice(sorted(os.listdir(data / "images")))


def _remove(data: Path, draw: random.Random) -> None:
    _any_image(data, draw).unlink()


def _truncate(data: Path, draw: random.Random) -> None:
    path = _any_image(data, draw)
    path.write_bytes(path.read_bytes()[: draw.randrange(1, path.stat().st_size)])


def _replace(data: Path, draw: random.Random) -> None:
    other = write_images(data.parent / "more", 2, seed=draw.randrange(1, 999))
    path = _any_image(data, draw)
    name = next(one for one in other if one.endswith(path.suffix))
    shutil.copyfile(data.parent / "more" / name, path)


def _replace_unseen(data: Path, draw: random.Random) -> None:
    """By one of the same size, in the same file, its time set back."""
    path = _any_image(data, draw)
    stat, content = path.stat(), bytearray(path.read_bytes())
    for place in range(len(content) * 2 // 3, len(content) * 2 // 3 + 4):
        content[place] ^= draw.randrange(1, 256)
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _reorder(data: Path, draw: random.Random) -> None:
    for path in data.glob("*.jsonl"):
        lines = path.read_text().splitlines()
        draw.shuffle(lines)
        path.write_text("\n".join(lines) + "\n")


def _move(data: Path, _draw: random.Random) -> Path:
    return data.rename(data.parent / "elsewhere")


CHANGES: dict[str, Callable[[Path, random.Random], Path | None]] = {
    "with an image less": _remove,
    "with an image cut short": _truncate,
    "with an image replaced": _replace,
    "with an image replaced unseen": _replace_unseen,
    "in another order": _reorder,
    "moved": _move,
}
