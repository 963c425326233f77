"""Training over the cache against encoders in the forward pass, as the journals trained.

Both sides have the same head, data, seed, order of samples and dropout, and compute in fp32. The
*uncached* side decodes, preprocesses and encodes its batch in every step; the *cached* side is
stage 2 itself over a cache of fp32 rows: easy-VQA, seeded ResNet-18 at 224 px, MiniLM.

\b
speedup                      samples a second over the cache at its best batch size, against the
                             uncached side at batch 30: median of the rounds
loss_difference_max          the largest difference between the losses of the same first steps, both
                             at batch 30
cached_epoch_seconds, uncached_epoch_seconds
                             of a training epoch; the uncached one is scaled from its steps
stage1_seconds               what writing the cache took
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

import vqa_cache
from benchmarks.inputs.caches import TEXT
from benchmarks.measuring.devices import hide_gpus
from benchmarks.measuring.report import json_option, reported
from benchmarks.measuring.trainings import begin_training
from benchmarks.measuring.turns import median, ratio, take_turns
from data.registry import open_dataset
from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings
from train.config.files import load_experiment
from train.config.schema import Config, Experiment
from train.config.seeds import batch_bounds, epoch_order
from train.engine.build import build_model, build_step, trainable
from train.engine.data import load_data
from train.inputs.device import environment
from train.inputs.load import TrainingData
from train.inputs.specification import Input
from train.loop.fit import Training
from train.loop.layout import METRICS
from vqa_cache.spec import Modality, parse_spec
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

DATASET = "easy_vqa"
IMAGE = "timm:resnet18:random=0"  # 224 px
JOURNALS_BATCH = 30
BATCH_SIZES = (512, 2048, 8192)
HEAD = ("head.hidden=[512]", "head.dropout=0.5", "head.batch_norm=false", "optimizer.lr=1e-3")
ENOUGH_EPOCHS = 10_000  # so that no measurement reaches the end of a training


@click.command("cached_vs_uncached", cls=Command, help=__doc__)
@click.option("--image", default=IMAGE, show_default=True, help="Image encoder.")
@click.option("--text", default=TEXT, show_default=True, help="Question encoder.")
@click.option("--limit", type=click.IntRange(min=1), help="Examples a split; by default all.")
@click.option("--loss-steps", default=100, show_default=True, help="Steps whose losses compare.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Uncached steps a round.")
@json_option
def command(
    image: str,
    text: str,
    limit: int | None,
    loss_steps: int,
    rounds: int,
    steps: int,
    as_json: bool,
) -> None:
    hide_gpus()
    keep_freed_memory()
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        report.figures["environment"] = environment(CPU)
        folder = Path(name)
        report.begin("stage 1 writes the cache")
        began = time.perf_counter()
        make_cache(folder / "cache", image, text, limit)
        report.figures["stage1_seconds"] = round(time.perf_counter() - began, 1)
        bench = Bench(folder, image, text)
        report.figures["examples"] = len(trainable(bench.data))
        report.begin(f"losses of the same {loss_steps} steps of both sides")
        report.figures |= bench.losses(loss_steps)
        report.begin(f"{rounds} rounds of {steps} uncached steps and of epochs over the cache")
        report.figures |= bench.speeds(rounds, steps)


def make_cache(path: Path, image: str, text: str, limit: int | None) -> None:
    """Stage 1 over easy-VQA, computed and stored in fp32."""
    request = Request(
        dataset=DATASET,
        root=None,
        cache=str(path),
        image=(image,),
        text=(text,),
        limit=limit,
        settings=EncoderSettings(dtype="fp32", precision="fp32"),
    )
    precompute(request, ConsoleReporter(quiet=True))


class Bench:
    """The cache, loaded, and both ways to train on it."""

    def __init__(self, folder: Path, image: str, text: str) -> None:
        self.folder, self.image, self.text = folder, image, text
        experiment, cache = self._experiment(JOURNALS_BATCH), vqa_cache.open(folder / "cache")
        self.data = load_data(experiment, cache, device=CPU)  # where the encoders compute

    def _experiment(self, batch_size: int) -> Experiment:
        overrides = [
            *(f"features.{kind}={spec}" for kind, spec in self._encoders().items()),
            *(f"features.dataset={DATASET}", "features.normalise=none", *HEAD),
            *(f"train.batch_size={batch_size}", f"train.epochs={ENOUGH_EPOCHS}"),
            *("train.precision=fp32", "train.snapshot_every=0", "schedule.name=constant"),
        ]
        return load_experiment("mlp_answers", overrides)

    def _encoders(self) -> dict[Modality, str]:
        return {"image": self.image, "text": self.text}

    def cached(self, batch_size: int) -> Training:
        """Stage 2 at its first step."""
        folder = self.folder / f"{batch_size}-{time.monotonic_ns()}"
        return begin_training(self._experiment(batch_size).config, self.data, folder)

    def uncached(self) -> UncachedTraining:
        """The journals' training at its first step."""
        encoders = {
            modality: load_encoder(parse_spec(spec), modality)
            for modality, spec in self._encoders().items()
        }
        return UncachedTraining(self._experiment(JOURNALS_BATCH).config, self.data, encoders)

    def losses(self, steps: int) -> dict[str, Any]:
        """The largest difference between the losses of the same steps."""
        uncached, cached = self.uncached(), self.cached(JOURNALS_BATCH)
        with closing(cached.log):
            for _ in range(steps):
                cached.train_step()
            cached.save()  # writes the losses down
        lines = (cached.folder / METRICS).read_text().splitlines()
        ours = torch.tensor([json.loads(line)["train_loss"] for line in lines])
        theirs = torch.stack([uncached.train_step() for _ in range(steps)])
        return {
            "loss_difference_max": float((ours - theirs).abs().max()),
            "loss_first": round(float(theirs[0]), 4),
            "loss_last": round(float(theirs[-1]), 4),
            "loss_steps": steps,
        }

    def speeds(self, rounds: int, steps: int) -> dict[str, Any]:
        """An epoch of each side; the uncached one's is its steps' time, scaled."""
        trainings = {size: self.cached(size) for size in BATCH_SIZES}
        work: dict[str, Callable[[], float]] = {
            f"b{size}": partial(epoch_of, training) for size, training in trainings.items()
        }
        work["uncached"] = partial(samples_of, self.uncached(), steps)
        speeds = take_turns(work, rounds=rounds)
        for training in trainings.values():
            training.log.close()
        best = max(BATCH_SIZES, key=lambda size: median(speeds, f"b{size}"))
        examples = len(trainable(self.data))
        return {
            "speedup": ratio(speeds, f"b{best}", "uncached"),
            "cached_batch_size": best,
            "cached_samples_per_second": median(speeds, f"b{best}"),
            "cached_epoch_seconds": round(examples / median(speeds, f"b{best}"), 3),
            "uncached_batch_size": JOURNALS_BATCH,
            "uncached_samples_per_second": median(speeds, "uncached"),
            "uncached_epoch_seconds": round(examples / median(speeds, "uncached"), 1),
            "uncached_epoch": f"scaled from {rounds} turns of {steps} steps",
        }


class UncachedTraining:
    """Head, loss, optimiser and step engine of stage 2, behind encoders that run in every step."""

    def __init__(self, config: Config, data: TrainingData, encoders: dict[Modality, Encoder]):
        self.config, self.encoders = config, encoders
        self.part, self.trainable = data.parts["train"], trainable(data)
        self.bounds = batch_bounds(len(self.trainable), config.train.batch_size)
        total = config.train.epochs * len(self.bounds)
        model = build_model(config, data, data.tables)
        self.engine = build_step(config, data, model, total_steps=total)
        dataset = open_dataset(DATASET, None)
        self.examples = list(dataset.examples("train"))
        self.root = dataset.root
        self.step = 0

    def train_step(self) -> torch.Tensor:
        """Decode, preprocess and encode the next batch, update the head; the loss, a scalar."""
        epoch, number = divmod(self.step, len(self.bounds))
        order = epoch_order(len(self.trainable), data_seed=self.config.data_seed, epoch=epoch)
        chosen = self.trainable[order[slice(*self.bounds[number])]]
        batch = [self.examples[place] for place in self.part.joined.kept[chosen].tolist()]
        items: dict[Modality, list[str]] = {
            "image": [str(self.root / example.images[0]) for example in batch],
            "text": [example.question for example in batch],
        }
        with torch.no_grad():
            inputs = {
                modality: encoder.encode([encoder.prepare(item) for item in items[modality]])
                for modality, encoder in self.encoders.items()
            }
        loss = self.engine(
            {name: Input(rows.flatten(1)) for name, rows in inputs.items()},
            self.part.truth[chosen],
            self.step,
        )
        self.step += 1
        return loss


def epoch_of(training: Training) -> float:
    """One epoch over the cache; its samples."""
    for _ in range(training.per_epoch):
        training.train_step()
    return float(len(training.trainable))


def samples_of(training: UncachedTraining, steps: int) -> float:
    """Some steps of the journals' training; their samples."""
    for _ in range(steps):
        training.train_step()
    return float(steps * JOURNALS_BATCH)
