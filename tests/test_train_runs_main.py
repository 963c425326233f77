"""`python -m train.runs`: listing, showing, SQL, export, cleaning."""

from __future__ import annotations

import csv
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.inputs.made_runs import begin_run, make_run
from train.config.files import load_experiment, to_toml
from train.runs.__main__ import command
from train.runs.registry import Registry
from train.runs.select import parse_condition
from train.runs.tabular import sparkline

ROOT = Path(__file__).parent.parent
CONFIG = load_experiment("cosine_answers").config.values()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Six finished runs, two of each head, and one that is unfinished."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for number in range(6):
        make_run(folder, CONFIG, number, 3)
    begin_run(folder, to_toml(CONFIG), "begun-0123456789ab")
    return folder


def invoke(runs: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--runs", str(runs)])


def rows_of(runs: Path, *arguments: str) -> list[dict[str, Any]]:
    done = invoke(runs, *arguments, "--json")
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    return rows


def error_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[str]:
    monkeypatch.setattr("sys.argv", ["runs", *arguments])
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


# ---------------------------------------------------------------- ls


def test_ls_filters_and_sorts(runs: Path) -> None:
    rows = rows_of(runs, "ls", "--where", "head.name=cosine", "--sort", "metrics.val.accuracy")
    figures = [row["metrics.val.accuracy"] for row in rows]
    assert [row["head.name"] for row in rows] == ["cosine"] * 3
    assert figures[:2] == sorted(figures[:2])
    assert figures[2] is None, "without a value it comes last"
    for order in (("--sort", "-metrics.val.accuracy"), ("--sort", "metrics.val.accuracy")):
        more = ("--reverse",) if not order[1].startswith("-") else ()
        down = rows_of(runs, "ls", "--where", "head.name=cosine", *order, *more)
        assert [row["metrics.val.accuracy"] for row in down] == [figures[1], figures[0], None]
    assert len(rows_of(runs, "ls", "--limit", "2")) == 2


@pytest.mark.parametrize(
    ("conditions", "seeds"),
    [
        (["seed=3"], [3]),
        (["seed=1:3"], [1, 2, 3]),
        (["seed=4:"], [4, 5]),
        (["seed=:1", "status=finished"], [0, 1]),
        (["status=unfinished"], [0]),
        (["head.name=mlp", "seed=2:"], [4]),
        (["head.name=0:"], []),
        (["features.dataset=easy_vqa", "seed=5"], [5]),
        (['features.dataset="easy_vqa"', "seed=5.0"], [5]),
        (["metrics.val.n=1000", "seed=:0.5"], [0]),
    ],
)
def test_where(runs: Path, conditions: list[str], seeds: list[int]) -> None:
    wheres = [part for text in conditions for part in ("--where", text)]
    assert sorted(row["seed"] for row in rows_of(runs, "ls", *wheres)) == seeds


def test_lists_and_booleans_are_typed_as_in_an_experiment(runs: Path) -> None:
    everything = len(rows_of(runs, "ls"))
    hidden = json.dumps(CONFIG["head"]["hidden"]).replace(" ", "")
    assert len(rows_of(runs, "ls", "--where", f"head.hidden={hidden}")) == everything
    answers = CONFIG["head"]["answers"]
    assert len(rows_of(runs, "ls", "--where", f"head.answers={answers}")) == everything
    assert parse_condition("head.batch_norm=true").value == "true"
    assert parse_condition("features.image=timm:resnet18").value == "timm:resnet18"
    assert (parse_condition("lr=1e-4:1E-2").low, parse_condition("lr=:3").low) == (1e-4, None)
    assert parse_condition("when=..:..").value == "..:.."


def test_ls_is_plain_where_it_is_no_terminal(runs: Path) -> None:
    done = invoke(runs, "ls", "--sort", "seed", "--show", "optimizer.lr")
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    columns = ["run", "status", "features.dataset", "seed"]
    columns += ["metrics.val.accuracy", "metrics.test.accuracy"]
    assert lines[0].split() == [*columns, "optimizer.lr"]
    assert not re.search(r"[^\n -~]", done.stdout), "no frames, no colours"


def test_ls_is_a_table_on_a_terminal(runs: Path) -> None:
    """Under a real pseudo-terminal."""
    import pty

    reader, writer = pty.openpty()
    arguments = [sys.executable, "-m", "train.runs", "ls", "--runs", str(runs)]
    done = subprocess.Popen(
        arguments, cwd=ROOT, stdout=writer, env={**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    )
    os.close(writer)
    shown = b""
    try:
        while chunk := os.read(reader, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(reader)
    assert done.wait() == 0
    assert "─" in shown.decode()
    assert shown.decode().count("made-") == 6


def test_unknown_keys_fail_with_near_ones(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--sort", "--show"):
        [line] = error_of(
            monkeypatch, capsys, "ls", option, "metrics.val.acuracy", "--runs", str(runs)
        )
        assert line == (
            "error: no run has a setting or figure 'metrics.val.acuracy'; did you mean "
            "metrics.val.accuracy?; `show RUN` lists those of a run"
        )
    [line] = error_of(monkeypatch, capsys, "ls", "--where", "hed.name=x", "--runs", str(runs))
    assert "did you mean head.name?" in line
    [line] = error_of(monkeypatch, capsys, "ls", "--where", "head.name", "--runs", str(runs))
    assert line.startswith("error: --where head.name: expected KEY=VALUE or KEY=LOW:HIGH")
    [line] = error_of(monkeypatch, capsys, "ls", "--runs", str(runs / "absent"))
    assert line.endswith("absent: no such folder; expected a folder of runs (--runs)")


# ---------------------------------------------------------------- show


def test_show_takes_a_path_an_id_or_a_prefix(runs: Path) -> None:
    run = next(path for path in runs.iterdir() if path.name.startswith("made"))
    for name in (str(run), run.name, run.name[:12]):
        done = invoke(runs, "show", name, "--json")
        assert json.loads(done.stdout)["run"] == run.name
    shown = json.loads(invoke(runs, "show", run.name, "--json").stdout)
    assert shown["values"]["head.name"] in ("linear", "mlp", "cosine")
    assert len(shown["metrics"]) == 6
    text = invoke(runs, "show", run.name, "--all").stdout
    assert f"path: {run}" in text
    assert re.search(r"^began: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", text, re.MULTILINE)
    assert re.search(r"^epoch +step +part +accuracy +cross_entropy$", text, re.MULTILINE)


def test_show_tells_the_main_things_on_one_screen(runs: Path) -> None:
    run = next(path for path in runs.iterdir() if path.name.startswith("made"))
    values = json.loads(invoke(runs, "show", run.name, "--json").stdout)["values"]
    lines = invoke(runs, "show", run.name[:12]).stdout.splitlines()
    assert len(lines) < 25
    assert lines[0] == f"{run.name}: finished"
    assert re.fullmatch(r"began \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \d+ min \d\d s", lines[1])
    told = "\n".join(lines)
    assert re.search(rf"^head.name +{values['head.name']}$", told, re.MULTILINE)
    accuracy = values["metrics.val.accuracy"]
    assert re.search(rf"^val +{accuracy:.4f} ± ", told, re.MULTILINE)
    assert lines[-1] == "every setting, figure and snapshot: --all"


def test_show_names_what_it_does_not_find(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = error_of(monkeypatch, capsys, "show", "made", "--runs", str(runs))
    names, _, advice = line.partition(" and 1 more; ")
    assert re.match(r"error: 'made' means several runs: (made-\w+, ){4}made-\w+$", names)
    assert advice == "type more of the id"
    [line] = error_of(monkeypatch, capsys, "show", "begun-0123456789aa", "--runs", str(runs))
    assert "did you mean begun-0123456789ab?" in line
    other = runs.parent / "other"
    other.mkdir()
    [line] = error_of(
        monkeypatch, capsys, "show", str(runs / "begun-0123456789ab"), "--runs", str(other)
    )
    assert line.endswith(f"is not in {other}; name its folder with --runs")


def test_show_of_a_sweep_has_its_best_trials(runs: Path) -> None:
    sweep = runs / "lr-sweep"
    sweep.mkdir()
    (sweep / "sweep.toml").write_text('sampler = "random"\n')
    rows = [
        {"trial": n, "params": {"optimizer.lr": n / 10}, "value": n / 20, "status": "finished"}
        for n in range(12)
    ]
    (sweep / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = invoke(runs, "show", "lr-sw").stdout
    listed = json.loads(invoke(runs, "ls", "--json").stdout)["sweeps"]
    finished = [row["value"] for row in rows if row["status"] == "finished"]
    assert listed == [{"sweep": "lr-sweep", "trials": len(finished), "best": max(finished)}]
    assert re.search(r"^lr-sweep +\d+ +0\.\d+$", invoke(runs, "ls").stdout, re.MULTILINE)
    assert json.loads(invoke(runs, "ls", "--where", "seed=0", "--json").stdout)["sweeps"] == []
    assert "12 trials; the 10 with the highest values:" in text
    assert text.splitlines()[-10].split() == ["11", "0.55", "1.1"]
    shown = json.loads(invoke(runs, "show", str(sweep), "--json").stdout)
    assert shown["settings"] == {"sampler": "random"}
    assert len(shown["trials"]) == 12


# ---------------------------------------------------------------- sql, export, rebuild


def test_sql_answers_a_select(runs: Path) -> None:
    query = "SELECT status, count(*) AS n FROM runs GROUP BY status ORDER BY status"
    done = invoke(runs, "sql", query, "--json")
    assert json.loads(done.stdout)["rows"] == [
        {"status": "finished", "n": 6},
        {"status": "unfinished", "n": 1},
    ]
    assert invoke(runs, "sql", query).stdout.splitlines()[0].split() == ["status", "n"]
    query = "WITH t AS (SELECT value FROM metrics WHERE name = 'accuracy') SELECT avg(value) FROM t"
    assert len(invoke(runs, "sql", query).stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM queue",
        "DROP TABLE runs",
        "UPDATE runs SET status = 'x'",
        "ATTACH 'other.sqlite' AS other",
        "PRAGMA journal_mode = DELETE",
        "VACUUM INTO 'copy.sqlite'",
        "SELECT 1; DELETE FROM queue",
        "SELEC 1",
    ],
)
def test_sql_refuses_everything_else(
    runs: Path,
    query: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    [line] = error_of(monkeypatch, capsys, "sql", query, "--runs", str(runs))
    assert line.startswith("error: sql: ")
    assert len(list(Registry.open(runs).rows())) == 7
    assert not list(tmp_path.glob("*.sqlite"))


def test_export_writes_a_row_a_run(runs: Path, tmp_path: Path) -> None:
    done = invoke(runs, "export", "--csv", str(tmp_path / "all.csv"))
    assert done.exit_code == 0
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    by_run = {row["run"]: row for row in rows}
    assert by_run["begun-0123456789ab"]["metrics.val.accuracy"] == ""
    made = next(row for row in rows if row["seed"] == "4")
    result = json.loads((runs / made["run"] / "result.json").read_text())
    assert float(made["metrics.val.accuracy"]) == result["metrics"]["val"]["accuracy"]
    assert invoke(runs, "export", "--csv", "-").stdout == (tmp_path / "all.csv").read_text()


def test_rebuild_counts_what_it_found(runs: Path) -> None:
    (runs / "registry.sqlite").unlink(missing_ok=True)
    assert invoke(runs, "rebuild").stdout.splitlines() == ["7 runs", "0 sweeps"]


def test_a_damage_found_while_reading_is_told_with_the_remedy(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(*_: Any, **__: Any) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr("train.runs.__main__.select_runs", damaged)
    [line] = error_of(monkeypatch, capsys, "ls", "--runs", str(runs))
    assert line == (
        "error: the run registry: database disk image is malformed; mend it with: "
        f"python -m train.runs rebuild --runs {runs}"
    )


# ---------------------------------------------------------------- clean


def age(folder: Path, days: float) -> None:
    then = time.time() - days * 86_400
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def add_snapshots(run: Path) -> None:
    for name in ("best", "step-00000010", "step-00000020"):
        folder = run / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_text('{"step": 10, "epoch": 1}')
        (folder / "model.safetensors").write_bytes(bytes(1000))


def test_clean_says_what_would_go_and_removes_it_with_yes(runs: Path, tmp_path: Path) -> None:
    made = sorted(path for path in runs.iterdir() if path.name.startswith("made"))
    add_snapshots(made[0])
    old, new = runs / "begun-0123456789ab", begin_run(runs, "", "new-0123456789ab")
    for run in (old, new):
        add_snapshots(run)
    age(old, 31)
    age(made[1], 400)
    files = sorted(runs.rglob("*"))
    done = invoke(runs, "clean")
    going = [str(old), *(f"{made[0]}/checkpoints/step-000000{n}0" for n in (1, 2))]
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == going
    assert re.match(r"3 folders, 0.0 MB would be removed; --yes", done.stdout.splitlines()[-1])
    assert {path for path in runs.rglob("*") if "registry" not in path.name} == {
        path for path in files if "registry" not in path.name
    }
    invoke(runs, "ls")
    assert invoke(runs, "clean", "--yes").exit_code == 0
    assert not old.exists()
    assert sorted(path.name for path in (made[0] / "checkpoints").iterdir()) == ["best"]
    assert len(list((new / "checkpoints").iterdir())) == 3, "it needs them to go on"
    assert made[1].is_dir()
    assert "begun-0123456789ab" not in {row["run"] for row in rows_of(runs, "ls")}
    shown = json.loads(invoke(runs, "show", made[0].name, "--json").stdout)
    assert [item["name"] for item in shown["snapshots"]] == ["best"]
    done = invoke(runs, "clean", "--older-than", "1m", "--json")
    assert json.loads(done.stdout) == {"would_remove": [], "bytes": 0}


def test_clean_never_leaves_the_runs_folder(runs: Path, tmp_path: Path) -> None:
    outside = begin_run(tmp_path, "", "kept-0123456789ab")
    add_snapshots(outside)
    (runs / "link-0123456789ab").symlink_to(outside)
    made = next(path for path in runs.iterdir() if path.name.startswith("made"))
    (made / "checkpoints").symlink_to(outside / "checkpoints")
    other = begin_run(runs, "", "other-0123456789ab")
    (other / "result.json").write_text("{}")
    (other / "checkpoints").mkdir()
    (other / "checkpoints" / "step-00000001").symlink_to(outside)
    age(outside, 90)
    before = sorted(outside.rglob("*"))
    assert invoke(runs, "clean", "--yes", "--older-than", "60d").exit_code == 0
    assert sorted(outside.rglob("*")) == before


def test_clean_wants_an_age(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = error_of(monkeypatch, capsys, "clean", "--older-than", "30", "--runs", str(runs))
    assert line == "error: --older-than 30: expected a number and m, h, d or w, such as 30d"


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize("arguments", [["ls", "--nope"], ["export"], ["compare", "a"], ["clear"]])
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2


def test_a_curve_is_a_line_of_blocks() -> None:
    assert sparkline([0, 0.5, 1], 0, 1, 60) == "▁▅█"
    assert sparkline(list(range(1000)), 0, 999, 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0], 3, 3, 60) == "▁"
