"""The benchmark of published systems, at its smallest: some through both stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measuring.report import Report
from benchmarks.systems import measure, systems
from data.shapes.dataset import Making
from train.runs.folder import load_run

# a cosine head over answers' texts, an LSTM over words, a text alone
CHOSEN = ["ash-ansemb-znorm", "upc-resnet50-welstm-improved", "textclf-cosine-1e-5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("systems")


def test_systems_of_every_kind_run_through_both_stages(folder: Path) -> None:
    report = Report()
    measure(report, folder, CHOSEN, Making(images=12, questions=96))
    figures = report.figures
    assert figures["errors"] == {}
    assert (figures["runnable"], figures["ran"], figures["failed"]) == (3, 3, 0)
    assert set(figures["accuracy"]) == set(CHOSEN)
    results = {path.parent.name: load_run(path.parent).result
               for path in (folder / "runs").glob("*/result.json")}  # fmt: skip
    for name in CHOSEN:
        result = next(one for run, one in results.items() if run.startswith(name))
        about = result["about"]
        assert about["fidelity"] in ("exact", "frozen_form", "proxy"), name
        assert about["source"], name
        used = {key: one["weights"] for key, one in about["stand_ins"].items()}
        assert used[f"features.{'text' if name.startswith('text') else 'image'}"] in (
            ("seeded",) if name.startswith("ash") else ("pretrained",)
        ), name


def test_what_cannot_run_is_counted_and_the_others_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the cache that the test before left, where it came before; its own otherwise."""
    import benchmarks.systems as module

    def refuse(name: str, cache: Path, runs: Path) -> float:
        if name == CHOSEN[2]:
            raise ValueError("of one's own")
        return 0.5

    monkeypatch.setattr(module, "run", refuse)
    report = Report()
    measure(report, folder, CHOSEN[1:], Making(images=12, questions=96))
    assert report.figures["errors"] == {CHOSEN[2]: "ValueError: of one's own"}
    assert (report.figures["ran"], report.figures["failed"]) == (1, 1)


def test_all_of_them_are_meant_by_default() -> None:
    assert len(systems()) == 45
