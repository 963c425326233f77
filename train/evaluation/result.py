"""`result.json`: the figures of a run, with all that is needed to judge them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # a result is printed again without torch
    from train.config.schema import Experiment
    from train.evaluation.calibrate import FittedTemperature
    from train.inputs.load import TrainingData
    from train.loop.fit import Fitted


def compose(
    experiment: Experiment,
    data: TrainingData,
    fitted: Fitted,
    *,
    run_id: str,
    metrics: Mapping[str, Any],
    baselines: Mapping[str, Any],
    calibration: FittedTemperature,
    controls_seconds: float,
) -> dict[str, Any]:
    """All of result.json.

    Args:
        controls_seconds: what `train.evaluation.controls` took.
    """
    from train.inputs.device import environment

    config = experiment.config
    return {
        "run_id": run_id,
        "experiment": experiment.name,
        "about": experiment.about.model_dump(),
        "dataset": config.features.dataset,
        "metrics": dict(metrics),
        "baselines": dict(baselines),
        "best": {
            "epoch": fitted.epoch,
            "metric": "accuracy",
            "split": data.selection,
            "held_out_of_train": data.held_out,
        },
        "calibration": asdict(calibration),
        "throughput": {
            **_speed(fitted, len(data.parts["train"])),
            "controls_seconds": controls_seconds,
            "controls_share": controls_seconds / fitted.seconds if fitted.seconds else None,
        },
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "steps": fitted.steps,
        "answers": len(data.vocabulary),
        "notes": list(data.notes),
        "environment": environment(data.device),
        "cache_digest": data.digest,
        "seed": config.seed,
        "precision": data.precision,
    }


def _speed(fitted: Fitted, examples: int) -> dict[str, float | None]:
    """Speed since the last start; None where that had nothing left to train."""
    if not fitted.samples:
        return {"samples_per_second": None, "epoch_seconds": None}
    speed = fitted.samples / fitted.seconds
    return {"samples_per_second": speed, "epoch_seconds": examples / speed}


PRINTED = ("majority", "question_only", "image_only")  # of the baselines: a terminal is narrow


def headline_split(result: Mapping[str, Any]) -> str:
    """The split whose accuracy stands for a run: test where it is labelled."""
    test = result["metrics"].get("test")
    return "test" if test and test["accuracy"] is not None else str(result["best"]["split"])


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """A small table: each split's accuracy, with its standard error, beside its baselines."""
    baselines = [name for name in PRINTED if name in result["baselines"]]
    title = f"{result['experiment']} on {result['dataset']}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (
        "split",
        "accuracy ± se",
        "n",
        "ceiling",
        *(b.replace("_", "\n") for b in baselines),
    ):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for split, metrics in result["metrics"].items():
        per_baseline = [(result["baselines"][name] or {}).get(split) or {} for name in baselines]
        table.add_row(
            split,
            with_error(metrics["accuracy"], metrics["accuracy_se"]),
            f"{metrics['n']:,}",
            _share(metrics["ceiling"]),
            *(_share(baseline.get("accuracy")) for baseline in per_baseline),
        )
    console.print(table)
    for line in (*by_answer_type(result), *what_it_fails(result)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def by_answer_type(result: Mapping[str, Any]) -> list[str]:
    """A line with the accuracy of each answer type on the split that stands for the run, the most
    frequent first; none where the data set has no types."""
    split = headline_split(result)
    types = result["metrics"][split].get("by_answer_type") or {}
    ordered = sorted(types.items(), key=lambda item: -item[1]["n"])
    told = [f"{name} {one['accuracy']:.4f} (n {one['n']:,})" for name, one in ordered]
    return [f"{split} by answer type: {', '.join(told)}"] if told else []


def below_question_only(result: Mapping[str, Any]) -> list[str]:
    """A line for each split on which the run is worse than its questions alone."""
    return [
        f"note: {split}: {reached:.4f} is below question only ({other:.4f}): the head makes less "
        "of both inputs than a small one of the question alone; train.overfit=64 checks that it "
        "can learn, train.lr_find finds its learning rate"
        for split, reached, other in _below(result, "question_only")
    ]


def below_light_probe(result: Mapping[str, Any]) -> list[str]:
    """A line for each split on which the run is worse than ridge regression on its inputs."""
    return [
        f"note: {split}: {reached:.4f} is below the light probe ({other:.4f}): ridge regression on "
        "the same inputs, which takes seconds, does better"
        for split, reached, other in _below(result, "light_probe")
    ]


def _below(result: Mapping[str, Any], baseline: str) -> list[tuple[str, float, float]]:
    """Splits on which a run is below a baseline, with both accuracies."""
    others = result["baselines"].get(baseline) or {}
    found = []
    for split, metrics in result["metrics"].items():
        reached, other = metrics["accuracy"], (others.get(split) or {}).get("accuracy")
        if reached is not None and other is not None and reached < other:
            found.append((split, reached, other))
    return found


def image_adds_nothing(result: Mapping[str, Any]) -> list[str]:
    """A line for each split on which other questions' images do as well as a question's own."""
    shuffled = result["baselines"].get("shuffled_pairs") or {}
    return [
        f"note: {split}: the image adds nothing that can be told from chance: with images of other "
        f"questions of the same text accuracy is {own['accuracy']:.4f} (visual gain "
        f"{own['visual_gain_low']:+.4f} to {own['visual_gain_high']:+.4f})"
        for split, own in shuffled.items()
        if own.get("visual_gain_low") is not None and own["visual_gain_low"] <= 0
    ]


def what_it_fails(result: Mapping[str, Any]) -> list[str]:
    """What a run does not do better than its controls, one line each."""
    return [
        *below_question_only(result),
        *below_light_probe(result),
        *image_adds_nothing(result),
    ]


def with_error(value: float | None, error: float | None) -> str:
    """Such as `0.9361 ± 0.0027`; `-` where there is no value."""
    if value is None:
        return "-"
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
