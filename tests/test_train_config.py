"""Experiments: overrides, and every error at once, one line each."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_train_small_cache import write_experiment

from train.config.check import check
from train.config.files import load_experiment, to_toml
from train.config.keys import flatten
from train.errors import ConfigError
from vqa_cache import experiments
from vqa_cache.experiments import describe, experiment_files, parse_value

SHIPPED = {
    "linear_answers",
    "mlp_answers",
    "cosine_answers",
    "cosine_answers_unscaled",
    "question_only",
    "image_only",
}


def lines_of(path: Path | str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_experiment(str(path), overrides)
    assert str(error.value).splitlines() == error.value.lines
    return error.value.lines


@pytest.mark.parametrize("name", sorted(experiment_files()))
def test_shipped_experiment_is_valid_and_says_what_it_is(name: str) -> None:
    path = experiment_files()[name]
    text = path.read_text()
    assert describe(path)
    if path.parent.name == "own":  # what published systems say: test_train_experiments.py
        assert f"python -m train {name}" in text
        assert "Expected" in text
    assert load_experiment(name).precompute == f"python -m precompute --for {name}"


def test_shipped_experiments() -> None:
    assert set(experiment_files()) >= SHIPPED
    unscaled = load_experiment("cosine_answers_unscaled").config.head.options
    assert (unscaled["scaled"], unscaled["answers"]) == (False, "none")
    assert load_experiment("question_only").config.features.image is None
    assert load_experiment("image_only").config.features.text is None


def test_compared_experiments_share_data() -> None:
    """So that their figures can be compared."""
    kept = ("features.dataset", "features.image", "features.text", "features.normalise")
    shared = [
        {
            key: value
            for key, value in load_experiment(name).config.identity().items()
            if key in kept or key.startswith("answers.")
        }
        for name in ("mlp_answers", "cosine_answers", "linear_answers", "cosine_answers_unscaled")
    ]
    assert all(one == shared[0] for one in shared)


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    config = load_experiment(str(write_experiment(tmp_path))).config
    assert config.head.options["batch_norm"] is False
    assert config.optimizer.options["beta2"] == 0.999
    assert config.answers.k == 1000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-4", 1e-4),
        ("true", True),
        ("on", "on"),
        ("[512, 256]", [512, 256]),
        ('"3"', "3"),
        (
            "timm:resnet18:random=0:tap=layer2:grid=4",
            "timm:resnet18:random=0:tap=layer2:grid=4",
        ),
        ("2020-01-01", "2020-01-01"),
        ("1\nseed = 2", "1\nseed = 2"),
        ("", ""),
    ],
)
def test_values_are_toml_or_text(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_overrides_reach_their_keys_and_stage_one(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    overrides = ["head.hidden=[4, 3]", "seed=7", "features.dataset=shapes", "baselines=off"]
    experiment = load_experiment(str(path), overrides)
    assert experiment.config.head.options["hidden"] == [4, 3]
    assert (experiment.config.seed, experiment.config.baselines) == (7, "off")
    assert experiment.precompute == f"python -m precompute --for {path} features.dataset=shapes"


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    lines = lines_of(
        write_experiment(tmp_path),
        "train.epoch=3",
        "train.batch_size=many",
        "head.drop_out=0.5",
        "head.dropout=high",
        "optimizer.lr=fast",
        "fusion.name=conkat",
        "answers.other=maybe",
        "features.image=tim:resnet18",
        "sede=1",
        "epochs=3",
        "lr=0.1",
        "train.lr=0.1",
        "head.epochs=3",
        "nonsense",
    )
    expected = [
        "'nonsense': expected KEY=VALUE, for example train.epochs=20",
        "features.image = 'tim:resnet18': encoder 'tim:resnet18': unknown family 'tim'",
        "answers.other = 'maybe': expected 'wrong', 'class' or 'drop'",
        "train.batch_size = 'many': expected a valid integer",
        "train.epoch = 3: unknown key; did you mean epochs?",
        "sede = 1: unknown key; did you mean seed?",
        "epochs = 3: unknown key; did you mean train.epochs?; known: seed, data_seed",
        "lr = 0.1: unknown key; did you mean optimizer.lr?",
        "train.lr = 0.1: unknown key; did you mean optimizer.lr?",
        "head.epochs = 3: unknown key; did you mean train.epochs?; options of head",
        "fusion.name: unknown fusion 'conkat'; did you mean concat?; known: concat, gmu, ",
        "head.drop_out = 0.5: unknown key; did you mean dropout",
        "head.dropout = 'high': expected a valid number",
        "optimizer.lr = 'fast': expected a valid number",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(sorted(lines), sorted(expected), strict=True):
        assert line.startswith(start)


def test_a_required_option_is_asked_for(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, head='name = "mlp"', optimizer='name = "adamw"')
    assert lines_of(path) == [
        "head.hidden: missing; head 'mlp' requires it",
        "optimizer.lr: missing; optimizer 'adamw' requires it",
    ]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["features.dataset.x=1"], "features.dataset.x: dataset is a value, not a section"),
        (["head.batch_norm=true", "train.batch_size=1"], "train.batch_size = 1: expected at least"),
        (["answers.k=0"], "answers.k = 0: expected greater than or equal to 1"),
        (
            ["train.precision=int8"],
            "train.precision = 'int8': expected 'auto', 'fp32', 'bf16' or 'fp16'",
        ),
        (["load=fast"], "load = 'fast': expected 'auto', 'map' or 'read'"),
        (["head.hidden=[1.5]"], "head.hidden = [1.5]: expected a valid integer"),
        (["head=mlp"], "head = 'mlp': expected a section of keys"),
    ],
)
def test_one_error_one_line(tmp_path: Path, overrides: list[str], line: str) -> None:
    found = lines_of(write_experiment(tmp_path), *overrides)
    assert len(found) == 1
    assert found[0].startswith(line)


def test_features_must_name_a_modality(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, features='dataset = "tiny"')
    assert lines_of(path) == [
        "features: neither image nor text is set; expected one of them at least"
    ]


def test_a_cosine_head_needs_an_answer_encoder(tmp_path: Path) -> None:
    path = write_experiment(
        tmp_path, features='text = "pkg:a/b"', head='name = "cosine"\nhidden = []'
    )
    assert lines_of(path)[0].startswith("features.answer_text: missing; head 'cosine' compares")


def test_unknown_experiment_lists_the_known_ones() -> None:
    [line] = lines_of("cosine_answer")
    assert line.startswith("unknown experiment 'cosine_answer'; did you mean cosine_answers?")
    assert all(name in line for name in SHIPPED)


def test_broken_and_missing_files(tmp_path: Path) -> None:
    assert lines_of(tmp_path / "absent.toml") == [
        f"experiment file {tmp_path / 'absent.toml'}: not found"
    ]
    (tmp_path / "broken.toml").write_text("seed = = 1")
    assert "broken.toml: not valid TOML:" in lines_of(tmp_path / "broken.toml")[0]


def test_names_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_experiment(tmp_path / folder, "twin")
    monkeypatch.setattr(experiments, "EXPERIMENTS", tmp_path)
    told = r"experiment 'twin' exists twice: .*one.*two"
    with pytest.raises(experiments.ExperimentError, match=told):
        experiment_files()


def test_a_users_own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "my_file.py").write_text(
        "import torch\n"
        "class MyHead(torch.nn.Linear):\n"
        "    def __init__(self, in_features, num_answers, *, gain: float = 1.0):\n"
        "        super().__init__(in_features, num_answers)\n"
    )
    path = write_experiment(tmp_path, head='name = "own.my_file:MyHead"')
    assert load_experiment(str(path), ["head.gain=2"]).config.head.options == {"gain": 2.0}
    assert "options of head 'own.my_file:MyHead': gain" in lines_of(path, "head.hidden=[3]")[0]
    assert "has no class or function Other" in lines_of(path, "head.name=own.my_file:Other")[0]
    assert "absent: no file" in lines_of(path, "head.name=absent:MyHead")[0]


def test_a_head_that_extends_another_hands_its_options_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_file.py").write_text(
        "from train.heads.mlp import MlpHead\n"
        "class MyHead(MlpHead):\n"
        "    def __init__(self, *given, batch_norm: bool = True, gain: float, **layers):\n"
        "        super().__init__(*given, batch_norm=batch_norm, **layers)\n"
    )
    path = write_experiment(tmp_path, head='name = "my_file:MyHead"\nhidden = [3]\ngain = 2.0')
    assert load_experiment(str(path)).config.head.options == {
        "hidden": [3],
        "dropout": 0.0,
        "dropout_input": 0.0,
        "batch_norm": True,
        "batch_norm_input": False,
        "gain": 2.0,
    }
    assert "unknown key" in lines_of(path, "head.gian=1")[0]


def test_written_config_reads_back(tmp_path: Path) -> None:
    text = 'one "quoted" \\ back\tslash, ünïcödé 🙂 \x7f'
    overrides = [f"answers.vocabulary={text}", "optimizer.eps=1e-12", "head.hidden=[]"]
    config = load_experiment(str(write_experiment(tmp_path)), overrides).config
    again = check(tomllib.loads(to_toml(config.values())))
    assert again == config
    assert flatten(config.values())["answers.vocabulary"] == text


def test_identity_leaves_out_what_changes_nothing(tmp_path: Path) -> None:
    path = str(write_experiment(tmp_path))
    plain = load_experiment(path).config.identity()
    free = ["load=map", "baselines=off", "train.keep_last=9", "train.keep_best=9"]
    assert load_experiment(path, [*free, "train.snapshot_every=1"]).config.identity() == plain
    assert load_experiment(path, ["train.epochs=4"]).config.identity() != plain
