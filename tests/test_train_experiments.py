"""The experiments that ship: published systems by name, what documents them, their size."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks.systems import counted
from train.__main__ import command
from train.config.catalogue import CATALOGUE, as_markdown, catalogue, read_figures
from train.config.faithful import MISTAKES
from train.config.files import load_experiment, show
from vqa_cache.experiments import EXPERIMENTS, experiment_files, read_experiment
from vqa_cache.spec import parse_spec

PUBLISHED = [
    "ash-v1-lr1e3",
    "ash-v1-lr1e4",
    "ash-v1-weighted",
    "ash-v1-dropout",
    "ash-v1-batchnorm",
    "ash-ansemb-cosine",
    "ash-ansemb-znorm",
    "ash-gmu-a",
    "ash-gmu-b",
    "ash-gmu-c",
    "ash-gmu-paper",
    "ash-transform-smallest",
    "ash-transform-largest",
    "ash-transform-preserve",
    "ash-transform-int",
    "ash-transform-off",
    "ash-best-1h1536",
    "ash-vithuge",
    "ash-bertlarge",
    "ash-finetune-gradual",
    "upc-model100",
    "upc-model100-weighted",
    "upc-1b",
    "upc-1c",
    "upc-1d",
    "upc-1e",
    "upc-1f",
    "upc-1fB",
    "upc-1fC",
    "upc-1g",
    "upc-1gB",
    "upc-vgg16-guse",
    "upc-vgg16-welstm-original",
    "upc-vgg16-welstm-improved",
    "upc-vgg16-glovebilstm",
    "upc-resnet50-guse",
    "upc-resnet50-welstm-original",
    "upc-resnet50-welstm-improved",
    "upc-resnet50-glovebilstm",
    "vqa2015-deeper-lstm-norm",
    "textclf-linear-2e-5",
    "textclf-cosine-1e-5",
    "dl2024-resnet50-tinybert-1e-3",
    "dl2024-resnet50-tinybert-1e-4",
    "dl2024-resnet50-tinybert-1e-5",
]
NEED_NO_DOWNLOAD = ["shapes", "easy_vqa"]


def test_all_published_systems_are_there_by_their_names_and_no_other() -> None:
    found = CliRunner().invoke(command, ["--list", "--json"])
    entries = json.loads(found.output)
    listed = {name for name, entry in entries.items() if entry["group"].startswith("journals/")}
    assert len(PUBLISHED) == 45
    assert listed == set(PUBLISHED)
    for name in PUBLISHED:
        entry = entries[name]
        assert entry["what"], name
        assert entry["dataset"] in ("vqa1", "vqa2"), name
        assert entry["image"] or entry["text"], name
        assert entry["fidelity"] in ("exact", "frozen_form", "proxy"), name
        assert entry["source"], name
        assert entry["why"], name
    assert entries["upc-vgg16-guse"]["published"] == {
        "figure": 0.471, "split": "VQA v1 val2014, a part", "n": 1000,
    }  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_system_is_a_short_file_that_says_how_to_run_it(name: str) -> None:
    lines = experiment_files()[name].read_text().splitlines()
    assert len(lines) <= 20
    assert f"#   make train EXP={name} ON=shapes" in lines


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_system_runs_without_a_download_where_its_data_need_none(name: str) -> None:
    own = load_experiment(name)
    assert own.about.stand_ins == {}
    for dataset in NEED_NO_DOWNLOAD:
        experiment = load_experiment(name, [f"features.dataset={dataset}"])
        features = experiment.config.features
        answers = [features.answer_text] if features.answer_text else []
        for spec in map(parse_spec, [*features.images, *features.texts, *answers]):
            assert spec.location[0] == "pkg" or "random" in spec.options, (name, str(spec))
        vectors = experiment.config.question and experiment.config.question.vectors
        assert vectors is None or vectors.startswith("random=")
        for key, one in experiment.about.stand_ins.items():
            if key.startswith("features."):
                assert one.weights in ("pretrained", "seeded"), key
        assert "features.text" in experiment.about.stand_ins or not features.texts


def test_parameters_are_those_that_were_published() -> None:
    found = counted()
    assert len(found) == 6
    for name, both in found.items():
        assert both["found"] == both["published"], name


def test_every_mistake_is_in_an_experiment_or_cannot_be_shown() -> None:
    named = {one for name in PUBLISHED for one in load_experiment(name).about.faithful}
    assert named == {name for name, mistake in MISTAKES.items() if mistake.settings}
    without = [name for name, mistake in MISTAKES.items() if not mistake.settings]
    told = load_experiment("upc-1fB").about.why or ""
    assert all(name in told for name in without)


@pytest.mark.parametrize("name", ["ash-gmu-a", "upc-1gB", "vqa2015-deeper-lstm-norm"])
def test_what_show_prints_is_the_experiment_itself(name: str, tmp_path: object) -> None:
    found = CliRunner().invoke(command, [name, "--show"])
    assert found.output == show(load_experiment(name))
    assert "extends" not in found.output


def test_the_page_of_all_experiments_is_current() -> None:
    assert CATALOGUE.read_text() == as_markdown(catalogue(), read_figures()), (
        "python -m train --list --markdown > train/experiments/README.md"
    )


def test_the_page_shows_what_was_measured_of_every_published_system_and_how() -> None:
    """The figures are a benchmark's own output, which names the data and the machine."""
    figures, page = read_figures(), CATALOGUE.read_text()
    assert (figures["systems"], figures["ran"], figures["failed"]) == (45, 45, 0)
    assert set(figures["accuracy"]) == set(PUBLISHED)
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, one in figures["accuracy"].items():
        assert rows[name].split("|")[-2].strip() == f"{one['accuracy']:.4f}", name
        assert (one["split"], one["n"]) == ("test", figures["made"]["questions"] // 10), name
    for what in ("cpu", "python", "torch"):
        assert figures["environment"][what] in page
    assert figures["parameters"] == counted()


def test_the_list_for_people_shows_fidelity_and_what_was_published() -> None:
    lines = CliRunner().invoke(command, ["--list"]).output.splitlines()
    row = next(line.split() for line in lines if line.startswith("upc-vgg16-guse "))
    assert row[:4] == ["upc-vgg16-guse", "proxy", "0.4710", "UPC"]
    own = next(line.split() for line in lines if line.startswith("mlp_answers "))
    assert own[:2] == ["mlp_answers", "MLP:"]


def test_every_stand_in_is_for_data_that_need_no_download() -> None:
    for name in PUBLISHED:
        read = read_experiment(name, ["features.dataset=elsewhere"])
        assert read.stood_in == {}, name
    assert (EXPERIMENTS / "journals").is_dir()
