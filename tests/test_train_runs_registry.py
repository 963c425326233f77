"""The registry as an index: what it holds is what the folders hold, whatever happens to it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_train_small_cache import run_of

import train.runs
from benchmarks.inputs.made_runs import begin_run, make_run
from benchmarks.registry import command as benchmark
from train.config.files import load_experiment, to_toml
from train.errors import TrainError
from train.runs import registry as registry_module
from train.runs.database import connect
from train.runs.records import LogPosition, read_run
from train.runs.registry import Registry

ROOT = Path(__file__).parent.parent
CONFIG = load_experiment("cosine_answers").config.values()
TEXT = to_toml(CONFIG)
QUERIES = (
    "SELECT run, experiment, status, reason, config, data, code, began, ended FROM runs",
    "SELECT r.run, key, value, typeof(value) FROM run_values v JOIN runs r ON r.id = v.run",
    "SELECT r.run, part, name, step, epoch, value FROM metrics m JOIN runs r ON r.id = m.run",
    "SELECT r.run, name, step, epoch, validated FROM snapshots s JOIN runs r ON r.id = s.run",
    "SELECT r.run, snapshot, step, epoch, part, name, value FROM validations v"
    " JOIN runs r ON r.id = v.run",
    "SELECT sweep, settings, began FROM sweeps",
    "SELECT s.sweep, trial, status, value, params, more FROM trials t"
    " JOIN sweeps s ON s.id = t.sweep",
)


def dump(registry: Registry) -> list[list[tuple[Any, ...]]]:
    """Everything that comes from folders, without numbers that depend on the order."""
    return [sorted(map(tuple, registry.db.execute(query)), key=repr) for query in QUERIES]


def made_runs(tmp_path: Path, count: int = 4) -> Path:
    runs = tmp_path / "runs"
    runs.mkdir(exist_ok=True)
    for number in range(count):
        make_run(runs, CONFIG, number, 3)
    return runs


def append(run: Path, *rows: dict[str, Any] | str) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def evaluated(epoch: int, accuracy: float) -> dict[str, Any]:
    return {"step": epoch * 10, "epoch": epoch, "part": "val", "accuracy": accuracy}


def points(registry: Registry, run: Path) -> list[tuple[float, float]]:
    query = "SELECT epoch, value FROM metrics m JOIN runs r ON r.id = m.run WHERE r.run = ?"
    return [tuple(row) for row in registry.db.execute(f"{query} ORDER BY step", [run.name])]


def add_sweep(runs: Path) -> Path:
    sweep = runs / "sweep-1"
    sweep.mkdir()
    (sweep / "sweep.toml").write_text('experiments = ["a"]\n[search]\nlr = "log:1e-5:1e-2"\n')
    (sweep / "trials.jsonl").write_text(
        '{"trial": 0, "params": {"optimizer.lr": 0.1}, "value": 0.5, "status": "finished"}\n'
        '{"trial": 1, "params": {"optimizer.lr": 9}, "value": null, "status": "diverged", "e": 2}\n'
        '{"trial": 2, "params": {"optim'
    )
    return sweep


# ---------------------------------------------------------------- what a training leaves


def test_a_training_is_in_the_registry(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "train.snapshot_every=1", "head.hidden=[16, 8]")
    registry = Registry.open(tmp_path / "runs")
    [row] = registry.rows()
    identity = json.loads((run / "identity.json").read_text())
    result = json.loads((run / "result.json").read_text())
    assert row["run"] == run.name
    assert (row["experiment"], row["status"]) == ("tiny_mlp", "finished")
    assert {key: row[key] for key in identity} == identity
    assert (row["head.name"], row["head.hidden"]) == ("mlp", "[16, 8]")
    assert (row["head.batch_norm"], row["optimizer.lr"], row["seed"]) == ("false", 0.01, 0)
    for split in ("val", "test"):
        key = f"metrics.{split}.accuracy"
        assert row[key] == result["metrics"][split]["accuracy"]
    assert row["metrics.val.vqa_accuracy_official"] is None, "known, and without a value"
    expected = [
        (r["epoch"], r["step"], r["accuracy"])
        for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "part" in r
    ]
    query = "SELECT epoch, step, value FROM metrics WHERE name = 'accuracy' ORDER BY step"
    assert [tuple(r) for r in registry.db.execute(query)] == expected
    assert len(expected) == 3
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    query = "SELECT name, validated FROM snapshots ORDER BY name"
    assert [tuple(r) for r in registry.db.execute(query)] == [(name, 0) for name in names]


def test_a_training_that_fails_says_why_until_it_is_trained_again(
    tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(TrainError):
        run_of(tmp_path, cache, "optimizer.lr=1e30", "optimizer.name=sgd")
    [row] = Registry.open(tmp_path / "runs").rows()
    assert row["status"] == "failed"
    assert row["reason"].startswith("tiny_mlp: step ")
    run = run_of(tmp_path, cache)
    (run / "result.json").unlink()
    (run / "failure.txt").write_text("a reason\n")
    assert read_run(run).columns["status"] == "failed"
    run_of(tmp_path, cache)
    assert not (run / "failure.txt").exists()
    assert read_run(run).columns["status"] == "finished"


def test_a_registry_that_cannot_be_used_costs_one_line(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "registry.sqlite").mkdir(parents=True)
    run = run_of(tmp_path, cache)
    assert (run / "result.json").is_file()
    [line] = capsys.readouterr().err.splitlines()
    expected = f"warning: {tmp_path}/runs/registry.sqlite: the run registry cannot be used ("
    assert line.startswith(expected)
    assert [row["run"] for row in train.runs.open(tmp_path / "runs").rows()] == [run.name], (
        "read from the folders instead"
    )


def test_a_folder_without_write_permission() -> None:
    """As another user, because root may write everywhere; outside pytest's private folder."""
    program = (
        "import os, sys, vqa_cache.system.durable; from pathlib import Path\n"
        "from train.runs.registry import Registry\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "registry = Registry.open(Path(sys.argv[1]))\n"
        "registry.refresh(); print(registry.in_memory, len(list(registry.rows())))"
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = made_runs(Path(folder), 2)
        Path(folder).chmod(0o755)
        runs.chmod(0o555)
        command = [sys.executable, "-c", program, str(runs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        runs.chmod(0o755)
    assert done.stdout.split() == ["True", "2"], done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "registry.sqlite: the run registry cannot be used" in done.stderr


# ---------------------------------------------------------------- indexing, again and again


def test_only_new_lines_of_a_log_are_read(tmp_path: Path) -> None:
    run = begin_run(made_runs(tmp_path, 0), TEXT, "a-0123456789ab")
    append(run, {"step": 1, "epoch": 1, "train_loss": 2.0}, evaluated(1, 0.1))
    first = read_run(run)
    assert not first.continues
    append(run, evaluated(2, 0.2), '{"step": 30, "epoch": 3, "part": "val", "accu')
    second = read_run(run, first.position)
    assert second.continues
    assert [point.value for point in second.points] == [0.2], "not the first, not the torn one"
    append(run, 'racy": 0.3}\n')
    third = read_run(run, second.position)
    assert [point.value for point in third.points] == [0.3]
    assert third.position == read_run(run).position


def test_a_log_that_was_cut_or_written_anew_is_read_from_its_start(tmp_path: Path) -> None:
    registry = Registry.open(made_runs(tmp_path, 0))
    run = begin_run(registry.runs, TEXT, "a-0123456789ab")
    append(run, *(evaluated(epoch, 0.1 * epoch) for epoch in range(1, 5)))
    registry.index_run(run)
    assert len(points(registry, run)) == 4
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:2]))
    registry.index_run(run)
    assert points(registry, run) == [(1, 0.1), (2, 0.2)]
    log.write_text("".join(json.dumps(evaluated(e, 0.9)) + "\n" for e in range(1, 4)))
    registry.index_run(run)
    assert points(registry, run) == [(1, 0.9), (2, 0.9), (3, 0.9)], "as long as before, and more"


def test_rewritten_rows_of_the_same_length_are_noticed(tmp_path: Path) -> None:
    run = begin_run(made_runs(tmp_path, 0), TEXT, "a-0123456789ab")
    append(run, evaluated(1, 0.1), evaluated(2, 0.2))
    position = read_run(run).position
    assert isinstance(position, LogPosition)
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace("0.2", "0.7"))
    again = read_run(run, position)
    assert not again.continues
    assert [point.value for point in again.points] == [0.1, 0.7]


def test_refresh_finds_new_changed_and_deleted_folders(tmp_path: Path) -> None:
    runs = made_runs(tmp_path, 2)
    registry = Registry.open(runs)
    registry.refresh()
    begun = begin_run(runs, TEXT, "a-0123456789ab")
    registry.refresh()
    statuses = sorted(row["status"] for row in registry.rows())
    assert statuses == ["finished", "finished", "unfinished"]
    append(begun, evaluated(1, 0.5))
    (begun / "result.json").write_text('{"metrics": {"val": {"accuracy": 0.5}}}')
    made = sorted(path for path in runs.iterdir() if path.name.startswith("made"))
    shutil.rmtree(made[0])
    registry.refresh()
    rows = {row["run"]: row for row in registry.rows()}
    assert set(rows) == {begun.name, made[1].name}
    assert rows[begun.name]["status"] == "finished"
    assert points(registry, begun) == [(1, 0.5)]


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    runs = made_runs(tmp_path, 2)
    broken = begin_run(runs, TEXT, "a-0123456789ab")
    (broken / "config.toml").write_text("seed = = 3")
    said: list[str] = []
    registry = Registry.open(runs, said.append)
    registry.refresh()
    assert len(list(registry.rows())) == 2
    [line] = said
    assert line.startswith(f"not indexed: {broken}/config.toml: not valid TOML")


def test_a_damaged_snapshot_does_not_hide_its_run(tmp_path: Path) -> None:
    run = begin_run(made_runs(tmp_path, 0), TEXT, "a-0123456789ab")
    for name, text in (("best", '{"step": 4, "epoch": 1}'), ("step-00000008", '{"step": ')):
        (run / "checkpoints" / name).mkdir(parents=True)
        (run / "checkpoints" / name / "model.json").write_text(text)
    assert [snapshot.name for snapshot in read_run(run).snapshots] == ["best"]


def test_a_sweep_is_indexed_up_to_its_torn_line(tmp_path: Path) -> None:
    runs = made_runs(tmp_path, 0)
    sweep = add_sweep(runs)
    registry = train.runs.open(runs)
    query = "SELECT trial, status, value, params, more FROM trials"
    assert [tuple(row) for row in registry.db.execute(query)] == [
        (0, "finished", 0.5, '{"optimizer.lr": 0.1}', "{}"),
        (1, "diverged", None, '{"optimizer.lr": 9}', '{"e": 2}'),
    ]
    with (sweep / "trials.jsonl").open("a") as file:
        file.write('izer.lr": 1}, "value": 0.7, "status": "pruned"}\n')
    registry.refresh()
    assert registry.db.execute("SELECT count(*) FROM trials").fetchone()[0] == 3


# ---------------------------------------------------------------- deleted, damaged, other version


def full_folder(tmp_path: Path, cache: Path) -> Path:
    """Runs of every kind: trained, validated, unfinished, failed; and a sweep."""
    run = run_of(tmp_path, cache, "train.snapshot_every=1")
    row = {"snapshot": "best", "epoch": 3, "part": "val", "metrics": {"new": 0.5, "none": None}}
    best = json.loads((run / "checkpoints/best/model.json").read_text())
    row |= {"epoch": best["epoch"], "step": best["step"]}
    (run / "validations.jsonl").write_text(json.dumps(row) + "\n")
    runs = made_runs(tmp_path)
    append(begin_run(runs, TEXT, "a-0123456789ab"), evaluated(1, 0.5))
    (begin_run(runs, TEXT, "b-0123456789ab") / "failure.txt").write_text("no\n")
    add_sweep(runs)
    return runs


def test_rebuild_brings_everything_back(tmp_path: Path, cache: Path) -> None:
    runs = full_folder(tmp_path, cache)
    registry = Registry.open(runs)
    registry.refresh()
    for run in runs.iterdir():  # as trainers do
        if (run / "config.toml").is_file():
            registry.index_run(run)
    before = dump(registry)
    assert all(before), "a row of every kind"
    assert ("metrics.val.new", 0.5, "real") in {row[1:] for row in before[1]}
    registry.close()
    for path in runs.glob("registry.sqlite*"):
        path.unlink()
    registry = Registry.open(runs)
    assert not any(dump(registry))
    registry.rebuild()
    assert dump(registry) == before
    registry.rebuild()
    assert dump(registry) == before
    reasons = "SELECT status, reason FROM runs WHERE run = 'b-0123456789ab'"
    assert tuple(registry.db.execute(reasons).fetchone()) == ("failed", "no")


@pytest.mark.parametrize("damage", ["no database", "pages"])
def test_a_damaged_database_is_set_aside_and_made_again(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = made_runs(tmp_path, 40)
    registry = Registry.open(runs)
    registry.refresh()
    before = dump(registry)
    registry.close()
    path = runs / "registry.sqlite"
    content = bytearray(path.read_bytes())
    begin = 0 if damage == "no database" else 8192  # the schema's page is left as it is
    content[begin:] = b"\xa5" * (len(content) - begin)
    path.write_bytes(content)
    said: list[str] = []
    registry = Registry.open(runs, said.append)
    registry.refresh()
    registry.rebuild()
    assert dump(registry) == before
    assert not registry.in_memory
    [line] = said
    assert line.startswith(f"{path} is damaged (")
    assert "set aside as registry.sqlite.damaged-1 and made again" in line
    assert line.endswith("made again from the run folders")
    assert (runs / "registry.sqlite.damaged-1").read_bytes()[-9:] == b"\xa5" * 9


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    runs = made_runs(tmp_path, 1)
    Registry.open(runs).close()
    db = sqlite3.connect(runs / "registry.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(TrainError, match=r"found version 99, expected 1; use the version"):
        connect(runs / "registry.sqlite")
    said: list[str] = []
    registry = Registry.open(runs, said.append)
    assert registry.in_memory
    assert len(said) == 1


def test_a_database_that_stays_locked_does_not_stop_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.runs.database.BUSY_SECONDS", 0.1)
    said: list[str] = []
    registry = Registry.open(made_runs(tmp_path, 0), said.append)
    run = make_run(registry.runs, CONFIG, 0, 1)
    other = connect(registry.path)
    other.execute("BEGIN IMMEDIATE")
    registry.index_run(run)
    registry.index_run(run)
    assert len(said) == 1
    assert "database is locked" in said[0]
    other.execute("ROLLBACK")
    registry.index_run(run)
    assert [row["run"] for row in registry.rows()] == [run.name]


# ---------------------------------------------------------------- several processes


def test_the_benchmark_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also: four writers, one of them killed, lose nothing and tear nothing."""
    monkeypatch.setattr("benchmarks.registry.TIMES", 1)  # each is a process
    figures = json.loads(CliRunner().invoke(benchmark, ["--small", "--json"]).stdout)
    assert (figures["runs"], figures["metric_rows"], figures["ls_rows"]) == (60, 480, 20)
    assert 0 < figures["ls_seconds"] <= figures["ls_seconds_max"] < 30
    assert figures["write_rows_per_second"] > 0
    assert figures["killed"] == 1
    for name in ("writer_errors", "damaged", "lost_rows", "torn_rows", "lost_jobs"):
        assert figures[name] == 0, figures
    assert figures["rows_written"] > 100
    assert figures["jobs_written"] > 4


def test_processes_that_make_the_same_registry_at_once(tmp_path: Path) -> None:
    runs = made_runs(tmp_path, 3)
    program = (
        "from pathlib import Path; from train.runs.registry import Registry\n"
        f"registry = Registry.open(Path({str(runs)!r}))\nregistry.refresh()\n"
        "print(len(list(registry.rows())), registry.in_memory)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(6)
    ]
    assert [process.communicate()[0].strip() for process in started] == ["3 False"] * 6


# ---------------------------------------------------------------- Python


def test_to_pandas_has_a_row_a_run(tmp_path: Path) -> None:
    runs = made_runs(tmp_path, 3)
    begin_run(runs, TEXT, "a-0123456789ab")
    table = train.runs.open(runs).to_pandas()
    assert len(table) == 4
    assert table.loc["a-0123456789ab", "status"] == "unfinished"
    finished = table[table["status"] == "finished"]
    assert finished["metrics.val.accuracy"].between(0, 1).all()
    assert str(table["began"].dtype).startswith("datetime64")
    assert abs(table["began"].iloc[0].timestamp() - os.stat(runs).st_mtime) < 600
    assert len(train.runs.open(made_runs(tmp_path / "runs", 0)).to_pandas()) == 0
    with pytest.raises(TrainError, match="no such folder; expected a folder of runs"):
        train.runs.open(tmp_path / "absent")


def test_looking_at_runs_loads_neither_torch_nor_pandas(tmp_path: Path) -> None:
    runs = made_runs(tmp_path, 2)
    program = (
        "import sys, train.runs, train.runs.__main__\n"
        f"train.runs.open({str(runs)!r})\n"
        "print({'torch', 'pandas', 'rich', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_warning_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    registry_module.warn("x")
    assert capsys.readouterr().err == "warning: x\n"
