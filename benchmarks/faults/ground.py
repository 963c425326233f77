"""What the campaigns work on: a small dataset, caches of it, and every kind of command that writes
one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import vqa_cache
from benchmarks.faults.scenario import CACHE, Rows, Scenario, rows_of
from benchmarks.inputs.pictures import BERT, RESNET, VIT, write_dataset
from benchmarks.measuring.warm import STAGE_1, Warm

TEXTS = ("--text", BERT, "--answer-text", BERT)
ENCODERS = ("--image", VIT, *TEXTS)
TOKENS = f"{VIT}:tap=tokens"
WARMED = ((VIT, "image"), (BERT, "text"), (RESNET, "image"))
MODULES = (*STAGE_1, "train")


@dataclass
class Ground:
    """The place of a campaign.

    Attributes:
        warm: runs the commands.
        folder: for everything that is written.
        data: the dataset.
        done: a folder with the finished cache of `ENCODERS`, and of VIT in a Zarr table of tokens.
        right: every row that any cache here may serve.
    """

    warm: Warm
    folder: Path
    data: Path = field(init=False)
    done: Path = field(init=False)
    right: Rows = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = write_dataset(self.folder / "data", images=9, train=8, test=4)
        self.done = self.made("done", self.stage_1(*ENCODERS))
        self.made("done", self.stage_1("--image", TOKENS, "--format", "zarr"))

    def stage_1(self, *more: str, data: Path | None = None) -> tuple[str, ...]:
        """Words of stage 1 on the dataset."""
        where = ("--dataset", "jsonl", "--root", str(data or self.data))
        sizes = ("--rows-per-shard", "4", "--precision", "fp32")
        return (*where, "--cache", f"{{place}}/{CACHE}", *sizes, *more)

    def made(self, name: str, command: Iterable[str], module: str = "precompute") -> Path:
        """A folder whose cache a command has written, or added to."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        work = Scenario(name, tuple(command), module)
        done = work.run(self.warm, place)
        if done.status:
            raise RuntimeError(f"{name}: exit code {done.status}: {done.stderr[-2000:]}")
        self.right |= rows_of(place / CACHE)
        return place

    def scenarios(self, names: Iterable[str] = ()) -> list[Scenario]:
        """Every kind of work, or those of some names, with what it comes to undisturbed."""
        makers = {
            "plain": self._plain,
            "zarr": self._zarr,
            "ragged": self._ragged,
            "extend": self._extend,
            "repair": self._repair,
            "retry": self._retry,
            "withdraw": self._withdraw,
            "copy": self._copy,
            "convert": self._convert,
            "import": self._import,
        }
        found = [makers[name]().undisturbed(self.warm, self.folder) for name in names or makers]
        for scenario in found:
            self.right |= scenario.rows
        return found

    def _plain(self) -> Scenario:
        return Scenario("plain", self.stage_1(*ENCODERS))

    def _zarr(self) -> Scenario:
        return Scenario("zarr", self.stage_1("--image", VIT, "--format", "zarr"))

    def _ragged(self) -> Scenario:
        return Scenario("ragged", self.stage_1("--image", TOKENS))

    def _extend(self) -> Scenario:
        limited = self.made("limited", self.stage_1("--image", VIT, "--limit", "3"))
        return Scenario("extend", self.stage_1("--image", VIT), start=limited)

    def _repair(self) -> Scenario:
        place = self.folder / "damaged"
        shutil.copytree(self.done, place)
        table = vqa_cache.open(place / CACHE).find_table(VIT, "image")
        first, second, *_ = sorted((table.folder / "shards").iterdir())
        first.write_bytes(first.read_bytes()[:-3])
        second.unlink()
        command = self.stage_1("--image", VIT, "--repair")
        return Scenario("repair", command, start=place, mends=True)

    def _retry(self) -> Scenario:
        data = shutil.copytree(self.data, self.folder / "truncated")
        for name in ("1.jpg", "5.jpg"):
            path = data / "images" / name
            path.write_bytes(path.read_bytes()[:-60])
        failed = self.made("failed", self.stage_1("--image", VIT, "--on-error", "skip", data=data))
        again = self.stage_1("--image", VIT, "--retry-failed", data=data)
        return Scenario("retry", again, start=failed, how={"patient": True})

    def _withdraw(self) -> Scenario:
        table = vqa_cache.open(self.done / CACHE).find_table(VIT, "image")
        image = str(self.data / "images" / "2.png")
        words = ("withdraw", table.name, "--cache", f"{{place}}/{CACHE}", "--image", image)
        return Scenario("withdraw", words, "vqa_cache", start=self.done)

    def _copy(self) -> Scenario:
        words = ("copy", str(self.done / CACHE), f"{{place}}/{CACHE}")
        return Scenario("copy", words, "vqa_cache")

    def _convert(self) -> Scenario:
        table = vqa_cache.open(self.done / CACHE).find_table(VIT, "image")
        words = ("copy", str(self.done / CACHE), f"{{place}}/{CACHE}", "--tables", table.name)
        return Scenario("convert", (*words, "--format", "zarr"), "vqa_cache")

    def _import(self) -> Scenario:
        cache, out = self.done / CACHE, self.folder / "exported"
        name = vqa_cache.open(cache).find_table(VIT, "image").name
        exported = self.warm("export", name, out, "--npy", "--cache", cache, module="vqa_cache")
        if exported.status:
            raise RuntimeError(exported.stderr)
        ids = ("--ids", str(out / "keys.txt"), "--key-by", "key", "--encoder", "elsewhere")
        words = ("import", "npy", str(out / "rows.npy"), *ids, "--cache", f"{{place}}/{CACHE}")
        self.made("imported", words, "vqa_cache")
        return Scenario("import", words, "vqa_cache")


@contextmanager
def prepared(folder: Path) -> Iterator[Ground]:
    """A ground with a warm server of its own."""
    warm = Warm(folder / "warm", WARMED, MODULES)
    try:
        yield Ground(warm, folder / "ground")
    finally:
        warm.close()
