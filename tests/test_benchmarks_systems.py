"""The benchmark of published systems, at its smallest: some through both stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.measuring.report import Report
from benchmarks.systems import LIKES, Chosen, measure, miniatures, systems
from data.registry import open_dataset
from data.shapes.dataset import Making, make
from train.config.catalogue import catalogue
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
    assert figures["made"] == {"images": 12, "questions": 96, "seed": 0}
    assert figures["environment"]["torch"] == torch.__version__
    results = {path.parent.name: load_run(path.parent).result
               for path in (folder / "runs").glob("*/result.json")}  # fmt: skip
    for name in CHOSEN:
        result = next(one for run, one in results.items() if run.startswith(name))
        test = result["metrics"]["test"]
        figure = {"accuracy": test["accuracy"], "split": "test", "n": test["n"]}
        assert figures["accuracy"][name] == figure, name
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

    def refuse(chosen: Chosen, cache: Path, runs: Path) -> dict[str, float]:
        if chosen.name == CHOSEN[2]:
            raise ValueError("of one's own")
        return {"accuracy": 0.5}

    monkeypatch.setattr(module, "run", refuse)
    report = Report()
    measure(report, folder, CHOSEN[1:], Making(images=12, questions=96))
    assert report.figures["errors"] == {CHOSEN[2]: "ValueError: of one's own"}
    assert (report.figures["ran"], report.figures["failed"]) == (1, 1)


def test_all_of_them_are_meant_by_default() -> None:
    assert len(systems()) == 45


def test_published_encoders_have_their_published_widths_over_the_official_files(
    tmp_path: Path,
) -> None:
    """Untrained; the largest, and v1's files, are left to `benchmarks systems --true-size`."""
    report = Report()
    names = ["dl2024-resnet50-tinybert-1e-4"]
    measure(report, tmp_path, names, Making(images=3, questions=12), true_size=True)
    figures = report.figures
    assert figures["errors"] == {}
    assert figures["ran"] == 1
    assert figures["widths"] == {
        "timm:resnet50.tv_in1k": 2048,
        "hf:huawei-noah/TinyBERT_General_4L_312D": 312,
    }


def test_every_published_encoder_has_a_like_of_its_size() -> None:
    entries = catalogue()
    named = {
        spec for name in systems() for kind in ("image", "text") for spec in entries[name][kind]
    }
    answers = {entries[name]["answer_text"] for name in systems()} - {None}
    assert set(LIKES) == named | answers


def test_the_miniatures_are_the_official_files_of_either_version(tmp_path: Path) -> None:
    make(tmp_path / "shapes", Making(images=3, questions=12))
    roots = miniatures(tmp_path / "shapes", tmp_path)
    found = {}
    for name, root in roots.items():
        dataset = open_dataset(name, root)
        assert dataset.splits() == ["train", "val", "test"]
        found[name] = [(e.question, e.answer) for e in dataset.examples("train")]
        prefix = "v2_" if name == "vqa2" else ""
        assert (root / f"{prefix}OpenEnded_mscoco_train2014_questions.json").is_file()
    assert found["vqa1"] == found["vqa2"] != []
