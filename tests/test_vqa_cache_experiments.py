"""Experiments' files: extending, standing in, and what both stages read of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from precompute.errors import PrecomputeError
from precompute.experiment import read_features
from train.config.files import load_experiment, show
from train.errors import ConfigError
from vqa_cache import experiments
from vqa_cache.experiments import ExperimentError, read_experiment

BASE = """# the base
source = "a journal"
fidelity = "proxy"
published = { figure = 0.5, split = "test", n = 10 }

[features]
dataset = "vqa2"
image = "hf:org/vit:tap=pooler"
text = "hf:org/bert:tap=pooler"

[head]
name = "linear"
dropout_input = 0.2

[optimizer]
name = "adam"
lr = 1e-4

[train]
epochs = 7

[stand_in]
on = ["shapes"]
features.image = "hf:vit:random=0"
features.text = "pkg:words/model"
train.epochs = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(experiments, "EXPERIMENTS", tmp_path)
    (tmp_path / "base.toml").write_text(BASE)
    return tmp_path


def write(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.toml").write_text(text)
    return name


def test_a_variant_is_the_lines_that_differ(folder: Path) -> None:
    name = write(
        folder,
        "variant",
        'extends = "base"\n[head]\ndropout_input = 0.5\n[train]\nbatch_size = 9\n',
    )
    config = load_experiment(name).config
    assert (config.head.name, config.head.options) == ("linear", {"dropout_input": 0.5})
    assert (config.train.epochs, config.train.batch_size) == (7, 9)
    deeper = write(folder, "deeper", 'extends = "variant"\n[optimizer]\nlr = 1e-3\n')
    assert load_experiment(deeper).config.optimizer.options["lr"] == 1e-3
    assert load_experiment(deeper).config.train.batch_size == 9


def test_another_component_takes_no_options_of_the_one_it_replaces(folder: Path) -> None:
    name = write(folder, "other", 'extends = "base"\n[head]\nname = "mlp"\nhidden = [4]\n')
    assert load_experiment(name).config.head.options["dropout_input"] == 0.0


def test_a_published_figure_is_no_variants_figure(folder: Path) -> None:
    about = load_experiment(write(folder, "variant", 'extends = "base"')).about
    assert (about.source, about.fidelity, about.published) == ("a journal", "proxy", None)
    published = load_experiment("base").about.published
    assert published is not None
    assert (published.figure, published.split, published.n) == (0.5, "test", 10)


def test_documentation_never_changes_what_a_run_is(folder: Path) -> None:
    plain = BASE[: BASE.index("source")] + BASE[BASE.index("\n[features]") :]
    other = load_experiment(write(folder, "plain", plain))
    assert other.config.identity() == load_experiment("base").config.identity()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'extends = "bose"',
            r"extends 'bose': unknown experiment 'bose'; did you mean base\?",
        ),
        (
            'extends = "gone/away.toml"',
            r"extends 'gone/away.toml': experiment file .*away",
        ),
        ("extends = 3", "extends is 3, expected the name of an experiment"),
        ('extends = "bad"', "bad extends bad: a circle; leave one extends out"),
        ('extends = "one"', "bad extends one extends bad: a circle"),
        ("stand_in = 3", "stand_in is 3, expected a table"),
        ("stand_in = { on = 3 }", "stand_in.on is 3, expected a list of datasets"),
    ],
)
def test_what_cannot_be_extended_is_one_line_in_both_stages(
    folder: Path, text: str, told: str
) -> None:
    write(folder, "one", 'extends = "bad"')
    write(folder, "bad", text)
    with pytest.raises(ConfigError, match=told) as found:
        load_experiment("bad")
    assert len(found.value.lines) == 1
    with pytest.raises(PrecomputeError, match=told):
        read_features("bad", ())


def test_a_path_is_extended_beside_its_file(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "own.toml").write_text('extends = "../base.toml"\n[train]\nepochs = 2\n')
    assert load_experiment(str(folder / "mine" / "own.toml")).config.train.epochs == 2


@pytest.mark.parametrize(
    ("typed", "image", "epochs"),
    [
        ([], "hf:org/vit:tap=pooler", 7),
        (["features.dataset=mydata"], "hf:org/vit:tap=pooler", 7),
        (["features.dataset=shapes"], "hf:vit:random=0", 3),
        (["features.dataset=shapes", "features.image=timm:x:random=0"], "timm:x:random=0", 3),
    ],
)
def test_stand_ins_are_for_the_data_sets_that_they_name_and_what_is_typed_wins(
    folder: Path, typed: list[str], image: str, epochs: int
) -> None:
    experiment = load_experiment("base", typed)
    assert (experiment.config.features.image, experiment.config.train.epochs) == (image, epochs)
    assert read_features("base", tuple(typed)) == experiment.config.features
    used = {key for key, one in experiment.about.stand_ins.items()}
    expected = set() if epochs == 7 else {"features.image", "features.text", "train.epochs"}
    assert used == (expected if image != "timm:x:random=0" else expected - {"features.image"})


def test_a_stand_in_says_what_it_replaces_and_whether_anybody_trained_it(folder: Path) -> None:
    about = load_experiment("base", ["features.dataset=shapes"]).about
    assert about.stand_ins["features.image"].model_dump() == {
        "instead_of": "hf:org/vit:tap=pooler", "used": "hf:vit:random=0", "weights": "seeded",
    }  # fmt: skip
    assert about.stand_ins["features.text"].weights == "pretrained"
    assert about.lines()[0] == (
        "features.image: hf:vit:random=0 stands in for hf:org/vit:tap=pooler (seeded, nobody "
        "trained it)"
    )


def test_what_is_shown_means_the_same(folder: Path, tmp_path: Path) -> None:
    experiment = load_experiment("base", ["features.dataset=shapes"])
    again = load_experiment(write(tmp_path, "again", show(experiment)))
    assert again.config == experiment.config
    assert again.about.published == experiment.about.published


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('fidelity = "perfect"', r"fidelity = 'perfect': expected 'exact', 'frozen_form'"),
        ('published = { figure = 47, split = "x" }', "published.figure = 47: expected less than"),
        ("published = { figure = 0.4 }", "published.split: missing"),
        (
            'published = { figure = 0.4, splits = "x", split = "y" }',
            r"published.splits = 'x': unknown key; did you mean split\?; known: figure, split, n",
        ),
    ],
)
def test_wrong_documentation_is_told(folder: Path, line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_experiment(write(folder, "bad", f"{line}\n" + 'extends = "base"\n'))


def test_an_unknown_name_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(ExperimentError, match="unknown experiment 'lost'; known: base, or a path"):
        read_experiment("lost")
