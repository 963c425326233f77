"""Damaged caches: what verify says, what training, export and readers do with them, and whether
stage 1 mends them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import vqa_cache
from benchmarks.faults.damage import Damage, plan
from benchmarks.faults.ground import ENCODERS, TOKENS, Ground
from benchmarks.faults.scenario import (
    CACHE,
    Files,
    Finding,
    Rows,
    kept,
    rows_of,
    unclean,
    wrong_rows,
)  # fmt: skip
from benchmarks.inputs.pictures import BERT, VIT, write_dataset
from vqa_cache.errors import CacheError
from vqa_cache.tools.exporting import export_table
from vqa_cache.tools.verify import verify

LOADS = ("auto", "map", "read")
_FEATURES = ("features.dataset=jsonl", f"features.image={VIT}", f"features.text={BERT}")
_TRAINING = ("linear_answers", "train.epochs=1", "baselines=off", "answers.k=3", *_FEATURES)
_MOST_TRIES = 3
# of a version that only a later program knows; of a dataset that stage 1 was not given here, whose
# shards a foreign seal lists as well
_BEYOND_REPAIR = ("newer", "joined by a foreign one")


@dataclass(frozen=True)
class Corrupted:
    """What came of one damage.

    Attributes:
        tried: whether it changed anything.
        trained, exported, mended: whether these were tried.
    """

    tried: bool
    trained: bool = False
    exported: bool = False
    mended: bool = False
    findings: list[Finding] = field(default_factory=list)


class Patient:
    """A finished cache of two HDF5 tables and a Zarr one, some rows being withdrawn: what it serves
    and what training and export make of it while it is sound."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.place = ground.folder / "patient"
        shutil.copytree(ground.done, self.place)
        image = str(ground.data / "images" / "2.png")
        table = vqa_cache.open(self.place / CACHE).find_table(VIT, "image").name
        self._withdraw = ("withdraw", table, "--image", image)
        ground.warm(*self._withdraw, "--cache", self.place / CACHE, module="vqa_cache")
        self.cache = self.place / CACHE
        other = write_dataset(ground.folder / "other", images=9, train=8, test=4, seed=1)
        self.foreign = ground.made("foreign", ground.stage_1(*ENCODERS, data=other)) / CACHE
        more = ground.stage_1("--image", TOKENS, "--format", "zarr", data=other)
        ground.made("foreign", more)
        self.rows: Rows = rows_of(self.cache)
        self.files: Files = kept(self.cache)
        if found := unclean(self.cache, "patient"):
            raise RuntimeError(found[0].what)
        self.exports = {name: self._exported(self.cache, name) for name in self.tables}
        self.trained = {load: self._trained(self.place, load)[0] for load in LOADS}

    @property
    def tables(self) -> list[str]:
        """Names of its tables."""
        return list(vqa_cache.open(self.cache).tables)

    def damages(self, count: int, draw: random.Random) -> list[Damage]:
        """What is to be tried."""
        return list(plan(self.cache, count, draw))

    def suffer(self, number: int, damage: Damage) -> Corrupted:
        """Damage a copy and see what everybody makes of it."""
        place = Path(mkdtemp(prefix="sick-", dir=self.ground.folder))
        try:
            shutil.copytree(self.place, place, dirs_exist_ok=True)
            cache = place / CACHE
            if not damage.inflict(cache, self.foreign):
                return Corrupted(False)
            found = self._verified(cache, damage)
            served = self._read(cache, damage)
            found += served if found else [one for one in served if one.kind != "rows_lost"]
            tables = [name for name in self.tables if f"tables/{name}/" in damage.path]
            for name in tables:
                found += self._export(cache, name, damage)
            trains = not damage.path.startswith("thumbnails/")
            if trains:
                found += self._train(place, LOADS[number % len(LOADS)], damage)
            beyond = damage.name in _BEYOND_REPAIR
            mends = not beyond and not (damage.name == "foreign" and "seal" in damage.path)
            if mends:
                found += self._mend(place, damage)
            return Corrupted(True, trains, bool(tables), mends, found)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _verified(self, cache: Path, damage: Damage) -> list[Finding]:
        try:
            problems = list(verify(vqa_cache.open(cache)))
        except CacheError:
            return []
        except Exception as error:
            return [_told_badly(f"verify, {damage.what}", error)]
        return [] if problems else [Finding("missed", f"verify misses: {damage.what}")]

    def _read(self, cache: Path, damage: Damage) -> list[Finding]:
        """Rows that a reader gets are right and complete, or it is told. Rows of a table that is
        none any more are gone, which verify alone can tell."""
        if not (cache / "CACHE.json").exists():
            return []  # the first thing that opening it tells, as `_verified` has seen
        told = wrong_rows(cache, self.rows, self.rows, damage.what)
        return [one for one in told if "a reader is told" not in one.what]

    def _export(self, cache: Path, name: str, damage: Damage) -> list[Finding]:
        try:
            made = self._exported(cache, name)
        except (CacheError, OSError):
            return []
        except Exception as error:
            return [_told_badly(f"export, {damage.what}", error)]
        same = made == self.exports[name]
        return [] if same else [Finding("exported", f"exported all the same: {damage.what}")]

    def _exported(self, cache: Path, name: str) -> Files:
        folder = Path(mkdtemp(prefix="export-", dir=self.ground.folder))
        try:
            export_table(vqa_cache.open(cache).tables[name], "npy", folder)
            return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        finally:
            shutil.rmtree(folder)

    def _train(self, place: Path, load: str, damage: Damage) -> list[Finding]:
        outcome, told = self._trained(place, load)
        if outcome is not None:
            same = outcome == self.trained[load]
            what = f"load={load}: trained all the same: {damage.what}"
            return [] if same else [Finding("trained_on", what)]
        if "Traceback" in told or "error: " not in told:
            what = f"train load={load}, {damage.what}: {told.strip().splitlines()[-1:]}"
            return [Finding("told_badly", what)]
        return []

    def _trained(self, place: Path, load: str) -> tuple[Files | None, str]:
        """Checkpoints, log and predictions, if the training came to its end; what it said."""
        from benchmarks.resume.runs import outcome

        runs = place / f"runs-{load}"
        where = ("--cache", place / CACHE, "--runs", runs)
        done = self.ground.warm(*_TRAINING, f"load={load}", *where, module="train")
        found = outcome(runs) if done.status == 0 else None
        if found is not None:  # the configuration says which load
            found = {name: one for name, one in found.items() if not name.endswith("config.toml")}
        shutil.rmtree(runs, ignore_errors=True)
        return found, done.stderr

    def _mend(self, place: Path, damage: Damage) -> list[Finding]:
        """What a user does: stage 1 with --repair, following what it says, then gc."""
        ground, cache = self.ground, place / CACHE
        commands: Sequence[tuple[str, tuple[str, ...]]] = (
            ("precompute", ground.stage_1(*ENCODERS, "--repair")),
            ("precompute", ground.stage_1("--image", TOKENS, "--repair")),
            ("vqa_cache", (*self._withdraw, "--cache", f"{{place}}/{CACHE}")),
            ("vqa_cache", ("gc", f"{{place}}/{CACHE}", "--yes", "--minutes", "0")),
        )
        for module, command in commands:
            words = [word.replace("{place}", str(place)) for word in command]
            for attempt in range(_MOST_TRIES):
                done = ground.warm(*words, module=module)
                if done.status == 0:
                    break
                told = (done.stderr.strip().splitlines() or [""])[-1]
                if attempt + 1 == _MOST_TRIES or not _follow(told, cache):
                    return [Finding("not_mended", f"{damage.what}: {module}: {told}")]
        where = f"{damage.what}, mended"
        found = unclean(cache, where)
        differing = sorted(
            name
            for name, content in _comparable(self.files).items()
            if _comparable(kept(cache)).get(name) != content
        )
        if differing:
            found.append(Finding("not_mended", f"{where}: differ: {differing[:3]}"))
        if not found and _splits(cache) != _splits(self.cache):
            found.append(Finding("not_mended", f"{where}: a split differs"))
        return [Finding("not_mended", one.what) for one in found[:1]]


def _told_badly(where: str, error: Exception) -> Finding:
    return Finding("told_badly", f"{where}: {type(error).__name__}: {error}")


def _follow(told: str, cache: Path) -> bool:
    """Do what an error says about a file that no program can make again; False where it says
    nothing of the kind."""
    path = Path(told.removeprefix("error: ").partition(": ")[0])
    if not path.is_relative_to(cache) or "delete" not in told:
        return False
    if path.name == "table.json":
        shutil.rmtree(path.parent)
    elif path.is_file():
        path.unlink()
    return True


def _comparable(files: Files) -> Files:
    """Without the splits, whose generation a repair may have raised, and what lists them."""
    return {
        name: one
        for name, one in files.items()
        if not name.startswith("examples/") and name != "seal.json"
    }


def _splits(cache: Path) -> dict[str, str]:
    opened = vqa_cache.open(cache)
    return {name: opened.examples(name).to_json() for name in opened.splits}
