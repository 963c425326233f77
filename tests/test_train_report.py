"""The report: one page that needs nothing else, whose figures are those of the runs."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import LISTENS, page_after_acts
from click.testing import CliRunner
from PIL import Image
from test_train_small_cache import (
    Item,
    SmallDataset,
    build_cache,
    image_key_of,
    result_of,
    run_of,
    small_dataset,
)

import vqa_cache
from train.report.__main__ import command
from train.runs.comparison import compare_accuracy
from train.runs.registry import open_registry
from vqa_cache.contents import picture_path

HOSTILE = "is <script>alert(1)</script> & $x$ it?"
HOSTILE_ANSWER = '"></td><img src=x onerror=alert(2)>'


def hostile_dataset() -> SmallDataset:
    """The small dataset with a question and an answer that a page must not take for its own."""
    dataset = small_dataset()
    for split, items in dataset.splits.items():
        images = sorted({item.images[0] for item in items})
        more = [
            Item((i,), HOSTILE, HOSTILE_ANSWER, (HOSTILE_ANSWER, "red"), "</b>", "other")
            for i in images
        ]
        dataset.splits[split] = [*items, *more]
    return dataset


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, two runs and a sweep, and a page about them; no test changes it."""
    from train.sweep.__main__ import command as sweep_command

    folder = tmp_path_factory.mktemp("reported")
    build_cache(folder / "cache", hostile_dataset())
    (folder / "cache" / "thumbnails").mkdir(exist_ok=True)
    for image in range(1000, 1006):
        content = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(content, "JPEG")
        picture_path(folder / "cache", image_key_of(image).hex()).write_bytes(content.getvalue())
    run_of(folder, folder / "cache", "baselines=on")
    run_of(folder, folder / "cache", "baselines=off", head='name = "linear"')
    varied = ["optimizer.lr=log:1e-3:1e-1", "loss.label_smoothing=0,0.1"]
    options = ["--trials", "6", "--sampler", "random", "--winners", "0", "--json"]
    told = invoke(folder, str(folder / "tiny_mlp.toml"), *varied, *options, of=sweep_command)
    (folder / "sweep.json").write_text(told)
    names = sorted(path.name for path in (folder / "runs").glob("*-*") if path.is_dir())
    assert len(names) == 3
    invoke(folder, *sorted(names, key=lambda name: "linear" in name))
    return folder


def invoke(folder: Path, *arguments: str, of: Any = command) -> str:
    options = ["--runs", str(folder / "runs"), "--cache", str(folder / "cache")]
    done = CliRunner().invoke(of, [*arguments, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def runs_of(folder: Path) -> dict[str, Path]:
    """Head's name -> run."""
    rows = open_registry(folder / "runs").rows()
    return {row["head.name"]: folder / "runs" / row["run"] for row in rows}


VOID = {"meta", "input", "img", "br"}


class Page(HTMLParser):
    """What is on a page: tables by id, script by id, every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.marked: dict[str, list[str]] = {}
        self.json: dict[str, Any] = {}
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.attributes += given.items()
        self.tags[tag] += 1
        self.ids += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append((tag, given))
        if tag == "table":
            self.tables[given.get("id", "heat")] = []
        if tag == "tr":
            self._table().append([])
        if tag in ("td", "th"):
            self._table()[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]
        self.tags[tag] += 1

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][1].get("type") == "application/json":
            self.json[self.open[-1][1]["id"]] = json.loads(data)
        if any(tag in ("td", "th") for tag, _ in self.open):
            self._table()[-1][-1] += data
            if any(given.get("class") == "marked" for _, given in self.open):
                name = next(reversed(self.tables))
                self.marked.setdefault(name, []).append(self._table()[-1][0])

    def _table(self) -> list[list[str]]:
        return self.tables[next(reversed(self.tables))]


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page((reported / "runs" / "report.html").read_text())


def rows(page: Page, table: str) -> list[dict[str, str]]:
    head, *body = page.tables[table]
    return [dict(zip(head, row, strict=True)) for row in body]


def section(page: Page, reported: Path, head: str) -> str:
    """The id of the section of a run."""
    names = [row["run"] for row in rows(page, "together-figures")]
    return f"run{names.index(runs_of(reported)[head].name) + 1}"


# ---------------------------------------------------------------- the page


def test_nothing_is_loaded_from_elsewhere(page: Page, reported: Path) -> None:
    text = (reported / "runs" / "report.html").read_text()
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith(("#", "data:")), (name, value)
    assert not page.tags & Counter({"link": 1, "iframe": 1, "object": 1, "base": 1})
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert any(value.startswith("default-src 'none'") for _, value in page.attributes)
    assert len(text) < 5_000_000


def test_what_comes_from_data_is_escaped(page: Page, reported: Path) -> None:
    text = (reported / "runs" / "report.html").read_text()
    assert "<script>alert" not in text
    assert page.tags["img"] == 0  # the page's script makes the samples' pictures
    assert not any(name.startswith("on") for name, _ in page.attributes)
    of_answers = {row["answer"] for row in rows(page, "run1-answers")}
    assert HOSTILE_ANSWER in of_answers
    asked = {one["question"] for one in page.json["samples"]["runs"]["run1"]}
    assert HOSTILE in asked


def test_every_id_is_there_once(page: Page) -> None:
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []


def test_the_figures_are_those_of_the_results(page: Page, reported: Path) -> None:
    for head, run in runs_of(reported).items():
        result = result_of(run)
        name = section(page, reported, head)
        shown = {row["figure"]: row for row in rows(page, f"{name}-splits")}
        for split, metrics in result["metrics"].items():
            for figure in ("accuracy", "accuracy_se", "ceiling", "calibration_error"):
                assert shown[figure.replace("_", " ")][split] == f"{metrics[figure]:.3f}"
            assert shown["n"][split] == f"{metrics['n']:,}"
        alone = (result["baselines"]["question_only"] or {}).get("test")
        assert ("accuracy of question only" in shown) == (alone is not None)
        types = rows(page, f"{name}-types-table")
        by_type = result["metrics"]["test"]["by_question_type"]
        assert {row["question type"]: row["top-1"] for row in types} == {
            kind: f"{found['accuracy']:.3f}" for kind, found in by_type.items()
        }
        answers = rows(page, f"{name}-answers")
        assert sum(int(row["support"]) for row in answers) == result["metrics"]["test"]["n"]


def test_the_question_alone_is_drawn_into_the_curves(page: Page, reported: Path) -> None:
    text = (reported / "runs" / "report.html").read_text()
    assert result_of(runs_of(reported)["mlp"])["baselines"]["question_only"] is not None
    assert text.count("question only, val<") == 2  # the run's own picture, and side by side


def test_settings_that_differ_are_marked(page: Page) -> None:
    assert "head.name" in page.marked["together-settings"]
    assert "baselines" in page.marked["together-settings"]
    assert "optimizer.lr" not in page.marked["together-settings"]
    first = rows(page, "together-settings")[0]["setting"]
    assert first in page.marked["together-settings"]


def test_two_runs_are_compared_question_by_question(page: Page, reported: Path) -> None:
    text = (reported / "runs" / "report.html").read_text()
    first, second = (reported / "runs" / row["run"] for row in rows(page, "together-figures"))
    found = compare_accuracy([first], [second], reported / "cache")
    assert f"{found.difference:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}" in text


def test_the_samples_are_what_the_run_answered(page: Page, reported: Path) -> None:
    runs = runs_of(reported)
    name = section(page, reported, "mlp")
    shown = page.json["samples"]["runs"][name]
    answered = {
        row["question_id"]: row["answer"]
        for row in json.loads((runs["mlp"] / "predictions.test.json").read_text())
    }
    other = {
        row["question_id"]: row["answer"]
        for row in json.loads((runs["linear"] / "predictions.test.json").read_text())
    }
    truth = vqa_cache.open(reported / "cache").examples("tiny/test").set_index("question_id")
    assert len(shown) == len({one["id"] for one in shown}) == 72
    for one in shown:
        given = [answer for answer, _ in one["top"]]
        assert given[0] == answered[one["id"]]
        assert one["truth"] == truth["answer"][one["id"]]
        kind = "hit" if given[0] == one["truth"] else "near" if one["truth"] in given else "miss"
        assert one["kind"] == kind
        assert [(run, answer) for run, answer, _ in one["others"]] == [
            (runs["linear"].name, other[one["id"]])
        ]
        if one["question"] == HOSTILE:
            assert one["annotators"] == [[HOSTILE_ANSWER, 1], ["red", 1]]
    pictures = page.json["samples"]["pictures"]
    assert set(pictures) == {image_key_of(image).hex() for image in range(1000, 1006)}
    assert all(value.startswith("data:image/jpeg;base64,/9j/") for value in pictures.values())


def test_fewer_samples_begin_with_those_that_have_a_picture(reported: Path, tmp_path: Path) -> None:
    out = tmp_path / "few.html"
    invoke(reported, runs_of(reported)["mlp"].name, "--samples", "2", "--out", str(out))
    samples = Page(out.read_text()).json["samples"]
    kinds = Counter(one["kind"] for one in samples["runs"]["run1"])
    assert set(kinds.values()) <= {1, 2}
    assert kinds["hit"] == 2
    assert all(one["image"] in samples["pictures"] for one in samples["runs"]["run1"][:2])


def test_a_sweep_shows_its_trials_and_what_decided_them(page: Page, reported: Path) -> None:
    said = json.loads((reported / "sweep.json").read_text())
    trials = {row["trial"]: row for row in rows(page, "sweep1-trials")}
    assert len(trials) == len(said["trials"]) == 6
    for trial in said["trials"]:
        row = trials[str(trial["trial"])]
        assert row["accuracy"] == f"{trial['value']:.3f}"
        assert row["optimizer.lr"] == f"{trial['params']['optimizer.lr']:.4g}"
        assert f"sweep1-trial-{trial['trial']}" in page.ids  # its line in the picture
    [shares] = [v for k, v in said["importance"].items() if k != "reasons" and v]
    shown = {row["key"]: row["importance"] for row in rows(page, "sweep1-importance1")}
    assert shown == {key: f"{share:.3f}" for key, share in shares.items()}


def test_the_same_runs_give_the_same_page(reported: Path, tmp_path: Path) -> None:
    name = runs_of(reported)["mlp"].name
    for out in ("a.html", "b.html"):
        invoke(reported, name, "--out", str(tmp_path / out))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_without_a_run_it_is_about_the_last_one(reported: Path, tmp_path: Path) -> None:
    out = tmp_path / "last.html"
    assert invoke(reported, "--out", str(out)) == f"report: {out}\n"
    assert runs_of(reported)["linear"].name in out.read_text()


def test_without_the_cache_the_figures_remain(reported: Path, tmp_path: Path) -> None:
    out, run = tmp_path / "page.html", runs_of(reported)["mlp"]
    arguments = [run.name, "--runs", str(run.parent), "--cache", str(tmp_path), "--out", str(out)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert (
        f"note: {run.name}: no single answers are shown: {tmp_path}: no cache here" in done.output
    )
    page = Page(out.read_text())
    assert page.tables["run1-splits"][0] == ["figure", "train", "val", "test"]
    assert page.json["samples"] == {"runs": {}, "pictures": {}}
    assert "run1-answers" not in page.tables


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing"],
         "error: no run 'nothing' in {runs}; `python -m train.runs ls --runs {runs}` lists them"),
        (["unfinished"], "error: run {runs}/unfinished: no result.json; it is not finished"),
        (["{mlp}", "--split", "dev"],
         "error: {mlp}: no figures for split 'dev'; it has: train, val, test"),
        (["--runs", "{runs}/none"],
         "error: {runs}/none: no such folder; expected a folder of runs (--runs)"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str,
) -> None:  # fmt: skip
    runs, mlp = tmp_path / "runs", runs_of(reported)["mlp"]
    shutil.copytree(mlp, runs / mlp.name)
    (runs / "unfinished").mkdir()
    shutil.copy(mlp / "config.toml", runs / "unfinished")
    named = {"runs": runs, "mlp": mlp.name}
    monkeypatch.setattr(
        "sys.argv", ["report", "--runs", str(runs), *(one.format(**named) for one in arguments)]
    )
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines() == [line.format(**named)]


def test_no_finished_run_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["report", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit):
        command()
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {tmp_path}: no finished run to report; train one: python -m train cosine_answers"
    )


# ---------------------------------------------------------------- in a browser

ACTS = (Path(__file__).parent / "report_in_a_browser.js").read_text()


def in_browser(page: Path, *options: str) -> dict[str, Any]:
    """Open a page and act on it; what the page told."""
    text = page.read_text()
    acted = page.with_name("acted.html")
    text = text.replace("<body>", f"<body>{LISTENS}")
    acted.write_text(text.replace("</body>", f"<script>{ACTS}</script></body>"))
    shown = page_after_acts(acted.as_uri(), page.parent, *options)
    [title] = re.findall(r"<title>(.*?)</title>", shown, re.DOTALL)
    found: dict[str, Any] = json.loads(unescape(title))
    return found


def test_a_browser_shows_sorts_filters_pages_and_switches(reported: Path, tmp_path: Path) -> None:
    shutil.copy(reported / "runs" / "report.html", tmp_path / "page.html")
    told = in_browser(tmp_path / "page.html", "--window-size=400,900")
    assert told["problems"] == []
    assert (told["first"], told["second"]) == (["together"], ["run2"])
    assert told["counters"] == ["1 of 72", "2 of 72", "72 of 72"]
    assert (told["kind"], told["picture"]) == ("kind hit", "data:image/jpeg;base64")
    assert 0 < told["hits"] < 72
    assert told["hostile"] == HOSTILE
    falling, rising, by_name = told["sorted"]
    numbers = [int(text) for text in falling]
    assert numbers == sorted(numbers, reverse=True)
    assert [int(text) for text in rising] == sorted(numbers)
    assert by_name == sorted(by_name, key=str.lower)
    everything, some = told["filtered"]
    assert 0 < some < everything
    assert told["open"] == [True, False]
    assert told["lit"] == [f"sweep1-{told['row']}"]
    assert told["theme"] == "dark"
    assert told["width"][0] <= told["width"][1]  # no sideways scrolling of the page on a phone
