"""Options out of range, found before anything is loaded."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
from test_train_small_cache import QUIET, result_of, run_of, write_experiment

from train.components import families
from train.components.families import Family
from train.components.lookup import options_of
from train.components.ranges import Range, Share, Size, all_finite
from train.config.files import load_experiment
from train.errors import ConfigError, TrainError
from train.loop.selection import milestones
from train.loop.training_loop import Watch
from train.sweep.request import Request
from train.sweep.run import sweep
from train.sweep.space import parse_space

MEMBERS = [
    (family, name)
    for family in (families.QUESTION, families.ATTENTION, *families.CHOSEN.values())
    for name in family.names()
]


def numbers_of(annotation: Any, ranges: tuple[Any, ...] = ()) -> list[tuple[Any, list[Range]]]:
    """Every type of numbers in an annotation, with the ranges that are said of it."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *said = typing.get_args(annotation)
        return numbers_of(inner, tuple(said))
    if annotation in (int, float):
        return [(annotation, [one for one in ranges if isinstance(one, Range)])]
    return [found for inner in typing.get_args(annotation) for found in numbers_of(inner)]


@pytest.mark.parametrize(
    ("family", "name"), MEMBERS, ids=lambda of: of if isinstance(of, str) else of.kind
)
def test_every_number_says_its_range_and_its_default_is_inside(family: Family, name: str) -> None:
    for key, (annotation, default) in options_of(family.find(name)).items():
        for _, ranges in numbers_of(annotation):
            assert len(ranges) == 1, (
                f"{family.kind}.{key} has no range; see train/components/ranges.py"
            )
            if isinstance(default, int | float):
                assert default in ranges[0], key


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=nan", "optimizer.lr = nan: expected a finite number and above 0"),
        ("optimizer.lr=inf", "optimizer.lr = inf: expected a finite number and above 0"),
        ("optimizer.lr=-0.1", "optimizer.lr = -0.1: expected a finite number and above 0"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay = -1: expected a finite number and"),
        ("optimizer.beta1=1.5", "optimizer.beta1 = 1.5: expected a finite number and at least 0"),
        ("optimizer.eps=0.0", "optimizer.eps = 0.0: expected a finite number and above 0"),
        ("loss.temperature=inf", "loss.temperature = inf: expected a finite number and above 0"),
        ("loss.temperature=0", "loss.temperature = 0: expected a finite number and above 0"),
        ("loss.label_smoothing=2", "loss.label_smoothing = 2: expected a finite number and at le"),
        ("loss.class_weight_power=-1", "loss.class_weight_power = -1: expected a finite number"),
        ("head.dropout=1.5", "head.dropout = 1.5: expected a finite number and at least 0 and be"),
        ("head.hidden=[0]", "head.hidden = [0]: expected a finite number and at least 1"),
        ("schedule.warmup_steps=-1", "schedule.warmup_steps = -1: expected a finite number and"),
    ],
)
def test_an_option_out_of_range_is_one_line(tmp_path: Path, override: str, line: str) -> None:
    path = write_experiment(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path), [override])
    (found,) = caught.value.lines
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"schedule": 'name = "linear"\nfinal = nan'}, "schedule.final = nan: expected a finite"),
        ({"schedule": 'name = "cosine"\nfinal = -1.0'}, "schedule.final = -1.0: expected a finit"),
        (
            {"optimizer": 'name = "sgd"\nlr = 0.1\nmomentum = -0.5'},
            "optimizer.momentum = -0.5: expected a finite number and at least 0 and below 1",
        ),
        ({"fusion": 'name = "product"\ndim = 0'}, "fusion.dim = 0: expected a finite number and"),
    ],
)
def test_so_is_one_of_another_component(
    tmp_path: Path, sections: dict[str, str], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(write_experiment(tmp_path, **sections)))
    assert caught.value.lines[0].startswith(line)


def test_a_users_own_option_is_finite_and_may_say_its_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ranged_head.py").write_text(
        "from torch import nn\nfrom train.components.ranges import Share\n"
        "def Own(inputs: int, answers: int, *, gain: float = 1.0, share: Share = 0.5,"
        " steps: list[float] = []):\n    return nn.Linear(inputs, answers)\n"
    )
    path = write_experiment(tmp_path, head='name = "ranged_head:Own"')
    load_experiment(str(path))
    wrong = ["head.gain=nan", "head.share=1.0", "head.steps=[1.0, inf]"]
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path), wrong)
    assert caught.value.lines == [
        "head.gain = nan: expected finite numbers",
        "head.share = 1.0: expected a finite number and at least 0 and below 1",
        "head.steps = [1.0, inf]: expected finite numbers",
    ]


def test_a_range_says_what_is_in_it() -> None:
    (share,) = typing.get_args(Share)[1:]
    assert 0 in share
    assert 1 not in share
    assert float("nan") not in share
    assert str(typing.get_args(Size)[1]) == "a finite number and at least 1"
    assert all_finite({"a": [1, "nan", 2.0]})
    assert not all_finite({"a": [1, float("inf")]})


def test_a_sweep_checks_every_trial_before_anything_is_read(tmp_path: Path) -> None:
    """Also what is wrong in a combination alone; of TPE, the trials that it begins with."""
    path = str(write_experiment(tmp_path))
    space = parse_space([path, "head.batch_norm=true,false", "train.batch_size=1,16"])
    for sampler in ("grid", "random", "tpe"):
        how: dict[str, Any] = {"sampler": sampler, "pruner": "none", "seed": 0, "lanes": 32}
        request = Request(space, trials=4 if sampler == "grid" else 64, winners=0, **how)
        with pytest.raises(
            ConfigError, match=r"at least 2 .*\(with head.batch_norm=true train.bat"
        ):
            sweep(request, cache=tmp_path / "absent", runs=tmp_path, watch=Watch(QUIET))


@pytest.mark.parametrize("every", [1e-8, 1e-300])
def test_no_more_evaluations_than_steps(every: float) -> None:
    assert milestones(every, steps_per_epoch=3, total=7) == frozenset(range(1, 8))
    assert milestones(0.5, steps_per_epoch=4, total=8) == {2, 4, 6, 8}


def test_batches_of_one_are_batches_of_one(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "train.batch_size=1", "train.overfit=5", "train.epochs=1")
    assert result_of(run)["steps"] == 5
    with pytest.raises(TrainError, match="expected at least 2 with batch normalisation"):
        run_of(tmp_path, cache, "train.batch_size=1", "head.batch_norm=true")
