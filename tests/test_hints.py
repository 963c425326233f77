"""A command that a message advises can be pasted: it is taken from the message and run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import BERT, VIT, write_dataset

import vqa_cache
from benchmarks.measuring.warm import Finished, Warm
from train.loop.layout import REGISTRY
from vqa_cache.cache import create_cache
from vqa_cache.remedy import Filling, fillings, remember

EXPERIMENT = f"""
baselines = "off"
[features]
dataset = "my-pets"
image = "{VIT}"
text = "{BERT}"
answer_text = "{BERT}"
[fusion]
name = "concat"
[head]
name = "cosine"
hidden = [8]
[loss]
name = "cross_entropy"
[optimizer]
name = "adamw"
lr = 1e-3
[train]
epochs = 1
batch_size = 8
"""


class Place:
    """One's own data, a cache and an experiment, none of them where commands look by themselves."""

    def __init__(self, warm: Warm, folder: Path) -> None:
        self._warm = warm
        self.data = write_dataset(folder / "my pets", images=8, train=10, test=4)
        self.cache, self.runs = folder / "a cache", folder / "some runs"
        self.experiment = folder / "my own.toml"
        self.experiment.write_text(EXPERIMENT)

    def precompute(self, *more: object, encoders: tuple[str, ...] = ("--image", VIT)) -> Finished:
        where = ("--dataset", "jsonl", "--root", self.data, "--name", "my-pets")
        return self._warm(*where, "--cache", self.cache, *encoders, *more)

    def train(self) -> Finished:
        where = ("--cache", self.cache, "--runs", self.runs)
        return self._warm(self.experiment, *where, module="train")

    def run(self, *arguments: object, module: str) -> Finished:
        return self._warm(*arguments, module=module)

    def paste(self, told: str) -> Finished:
        """Run the command that a line advises."""
        found = re.findall(r"python -m [^;`)]*[^;`)\s]", told)
        assert len(found) == 1, told
        _, _, module, *arguments = shlex.split(found[0])
        done = self._warm(*arguments, module=module)
        assert done.status == 0, (found, done.stderr)
        return done


@pytest.fixture
def place(warm: Warm, tmp_path: Path) -> Place:
    return Place(warm, tmp_path)


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_what_mends_a_damaged_shard(place: Place, damage: str) -> None:
    assert place.precompute("--rows-per-shard", 3).status == 0
    [table] = vqa_cache.open(place.cache).tables.values()
    record = table.shards[0]
    path = table.folder / record.files[0].path
    content = bytearray(path.read_bytes())
    content[record.arrays["rows"].offset] ^= 1
    path.unlink()
    if damage == "flip":
        path.write_bytes(content)
    where = (table.name, place.cache.parent / "rows", "--npy", "--cache", place.cache)
    line = place.run("export", *where, module="vqa_cache").error_line()
    assert "1 shards repaired" in place.paste(line).stderr
    assert place.run("export", *where, module="vqa_cache").status == 0


def test_a_lost_shard_is_told_by_a_plain_run(place: Place) -> None:
    assert place.precompute("--rows-per-shard", 3).status == 0
    [table] = vqa_cache.open(place.cache).tables.values()
    lost = min(table.folder.glob("shards/*.h5"))
    rows = next(record.rows for record in table.shards if record.shard == lost.stem)
    lost.unlink()
    line = place.precompute().error_line()
    assert line.startswith(
        f"table {table.name}: {rows} of 8 rows are lost, in 1 of 3 shards ({lost}: missing); "
        "encode them again: python -m precompute "
    )
    place.paste(line)
    assert place.precompute().status == 0


def test_neither_a_limited_nor_a_failed_command_is_advised(place: Place) -> None:
    assert place.precompute("--rows-per-shard", 3).status == 0
    assert place.precompute("--limit", 1).status == 0
    assert place.precompute("--splits", "nope").status == 1
    assert place.precompute(encoders=("--image", VIT, "--text", "dir:/no/such")).status == 1
    [table] = vqa_cache.open(place.cache).tables.values()
    max(table.folder.glob("shards/*.h5")).unlink()
    place.paste(place.precompute().error_line())
    assert [bool(one.options) for one in fillings(place.cache)] == [False, True]


def test_what_writes_a_damaged_split_again(place: Place) -> None:
    assert place.precompute().status == 0
    [path] = (place.cache / "examples" / "my-pets" / "train").glob("*.h5")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(vqa_cache.CacheError, match="mend it: python -m") as caught:
        vqa_cache.open(place.cache).examples("my-pets/train")
    place.paste(str(caught.value).partition("mend it: ")[2])
    assert len(vqa_cache.open(place.cache).examples("my-pets/train")) == 10


def test_what_encodes_what_a_training_lacks(place: Place) -> None:
    assert place.precompute().status == 0
    line = place.train().error_line()
    assert "no text table" in line
    place.paste(line)
    assert place.train().status == 0


def test_what_adds_missing_answers(place: Place) -> None:
    assert place.precompute(encoders=("--image", VIT, "--text", BERT)).status == 0
    line = place.train().error_line()
    assert "answer texts" in line
    place.paste(line)
    assert place.train().status == 0


def test_what_completes_limited_splits(place: Place) -> None:
    encoders = ("--image", VIT, "--text", BERT, "--answer-text", BERT)
    assert place.precompute("--limit", 8, encoders=encoders).status == 0
    done = place.train()
    told = (done.stdout + done.stderr).splitlines()
    [line] = [one for one in told if "train: holds the first 8" in one]
    place.paste(line)
    done = place.train()
    assert "holds the first" not in done.stdout + done.stderr


def test_what_lists_runs_and_mends_their_registry(place: Place) -> None:
    encoders = ("--image", VIT, "--text", BERT, "--answer-text", BERT)
    assert place.precompute(encoders=encoders).status == 0
    assert place.train().status == 0
    line = place.run("show", "none", "--runs", place.runs, module="train.runs").error_line()
    assert "my own" in place.paste(line).stdout
    with (place.runs / REGISTRY).open("r+b") as file:
        file.seek(60)  # its own version number
        file.write((99).to_bytes(4, "big"))
    line = place.run("ls", "--runs", place.runs, module="train.runs").stderr
    assert "found version 99" in line
    for path in place.runs.glob(f"{REGISTRY}*"):
        path.rename(place.cache / path.name)
    assert place.paste(line).stdout.startswith("1 runs")


def test_what_shows_the_files_of_a_dataset(place: Place, tmp_path: Path) -> None:
    shutil.rmtree(place.data)
    assert "train.jsonl" in place.paste(place.precompute().error_line()).stdout
    place.data.mkdir()
    assert "train.jsonl" in place.paste(place.precompute().error_line()).stdout
    checked = place.run("check", "jsonl", place.data, module="data")
    assert "train.jsonl" in place.paste(checked.error_line()).stdout


def test_the_last_command_that_filled_a_table_is_advised(place: Place) -> None:
    cache = create_cache(place.cache).path
    first = Filling("jsonl", "a", "/data/a", (VIT,), (), ())
    second = Filling("jsonl", "b", None, (), (BERT,), (), ("--limit", "3"))
    for filling in (first, second, first, first):
        remember(cache, filling)
    with (cache / "commands.jsonl").open("ab") as file:
        file.write(b'{"dataset": 3}\n[]\nnone\n\xff\n')
    assert list(fillings(cache)) == [first, second]
    path = cache / "commands.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"/data/a"', b'"/data/e"'))
    assert list(fillings(cache)) == [second]  # a changed command may do harm
    assert first.command(cache, "--repair").endswith(f"--image {VIT} --repair")


def test_commands_name_no_cache_where_it_is_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    made: Any = Filling("vqa2", "vqa2", str(tmp_path / "data"), (VIT,), (), ())
    assert (
        made.command(Path("cache"))
        == f"python -m precompute --dataset vqa2 --root data --image {VIT}"
    )
