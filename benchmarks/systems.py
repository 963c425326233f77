"""Every published system through both stages: one dataset of the generator, one epoch each.

Encoders are the stand-ins that each experiment names for `shapes`; the parameters of the systems
whose size was published are counted at the published widths, without any encoder.

\b
systems       how many experiments there are of published systems
runnable      of them, those that their fidelity does not call not_cacheable
ran, failed   how many of those ended with a result; `errors` says why the others did not
parameters    name -> found, published
accuracy      name -> on the split that stands for the run, after one epoch: what a system learns
              in one epoch is no measure of it
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks.measuring.report import Report, json_option, reported
from data.shapes.dataset import Making, make
from precompute.experiment import read_features
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from train.config.catalogue import catalogue
from train.config.files import load_experiment
from train.engine.build import make_model
from train.evaluation.result import headline_split
from train.inputs.specification import Specification, Vector, Words
from train.runs.folder import load_run
from train.trainer import train
from vqa_cache.system.allocator import keep_freed_memory

ON = "features.dataset=shapes"
ANSWERS = 1_000
VIT, RESNET50, VGG16_FC7, BERT, SENTENCE = (Vector(d) for d in (768, 2048, 4096, 768, 512))
WORDS_OF_GLOVE = Words(10_288, 30, torch.zeros(10_288, 50))
# what the published systems were given, and how many parameters they train
PUBLISHED: dict[str, tuple[dict[str, Specification], int]] = {
    "ash-v1-lr1e3": ({"image": VIT, "text": BERT}, 2_718_184),
    "ash-best-1h1536": ({"image": VIT, "text": BERT}, 5_085_160),
    "upc-resnet50-guse": ({"image": RESNET50, "text": SENTENCE}, 4_700_136),
    "upc-vgg16-guse": ({"image": VGG16_FC7, "text": SENTENCE}, 6_797_288),
    "upc-vgg16-glovebilstm": ({"image": VGG16_FC7, "text": WORDS_OF_GLOVE}, 16_979_944),
}
GATE = 2_360_832  # of ash-gmu-c, beside the same system without


def parameters_of(name: str, given: Mapping[str, Specification], *overrides: str) -> int:
    """How many parameters an experiment trains over inputs of the published widths."""
    model = make_model(load_experiment(name, overrides).config, given, ANSWERS)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def counted() -> dict[str, dict[str, int]]:
    """Name -> found and published numbers of parameters."""
    rows = {
        name: {"found": parameters_of(name, given), "published": published}
        for name, (given, published) in PUBLISHED.items()
    }
    given = {"image": VIT, "text": BERT}
    gate = parameters_of("ash-gmu-c", given) - parameters_of(
        "ash-best-1h1536", given, "head.hidden=[750]"
    )
    return {**rows, "ash-gmu-c": {"found": gate, "published": GATE}}


def systems() -> list[str]:
    """The experiments of published systems."""
    return [name for name, entry in catalogue().items() if entry["group"].startswith("journals/")]


def encode(names: Iterable[str], root: Path, cache: Path) -> None:
    """Stage 1 for all of them: every encoder once."""
    features = [read_features(name, (ON,)) for name in names]
    request = Request(
        dataset="shapes",
        root=str(root),
        cache=str(cache),
        image=_once(spec for one in features for spec in one.images),
        text=_once(spec for one in features for spec in one.texts),
        answer_text=_once(one.answer_text for one in features if one.answer_text),
    )
    precompute(request, ConsoleReporter(quiet=True))


def _once(specs: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(specs))


def run(name: str, cache: Path, runs: Path) -> float:
    """One epoch of a system; its accuracy."""
    overrides = [ON, "train.epochs=1", "baselines=off"]
    if load_experiment(name, [ON]).config.schedule.options.get("warmup_steps"):
        overrides.append("schedule.warmup_steps=0")  # an epoch may be shorter than its warm-up
    experiment = load_experiment(name, overrides)
    path = train(experiment, cache=cache, runs=runs, console=Console(quiet=True))
    result = load_run(path).result
    return float(result["metrics"][headline_split(result)]["accuracy"])


@click.command("systems", help=__doc__)
@click.option("--images", default=1_000, show_default=True)
@click.option("--questions", default=10_000, show_default=True)
@click.option("--only", multiple=True, metavar="NAME", help="These alone; may repeat.")
@json_option
def command(images: int, questions: int, only: tuple[str, ...], as_json: bool) -> None:
    """`python -m benchmarks systems`."""
    keep_freed_memory()
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as folder:
        measure(report, Path(folder), list(only) or systems(), Making(images, questions))


def measure(report: Report, folder: Path, names: list[str], making: Making) -> None:
    """Fill the report."""
    figures, entries = report.figures, catalogue()
    runnable = [name for name in names if entries[name]["fidelity"] != "not_cacheable"]
    figures |= {"systems": len(names), "runnable": len(runnable), "ran": 0, "failed": 0}
    figures |= {"errors": {}, "accuracy": {}, "parameters": counted()}
    report.begin(f"stage 1 of {len(runnable)} systems")
    make(folder / "shapes", making)
    encode(runnable, folder / "shapes", folder / "cache")
    for name in runnable:
        report.begin(name)
        try:
            figures["accuracy"][name] = run(name, folder / "cache", folder / "runs")
            figures["ran"] += 1
        except Exception as error:  # whatever it is: the others are run all the same
            figures["errors"][name] = f"{type(error).__name__}: {error}"
            figures["failed"] += 1
