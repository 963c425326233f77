"""Answers that no training has seen: a cosine head compares with their texts all the same.

Of the answers that `cosine_answers` would choose from on `shapes`, as many as --held-out are left
out of the training for a test and as many for a validation, drawn by the seed among those that at
most 1 % of the training questions have. The head is trained on the questions of the others. Then
it is offered the held-out texts too, beside all that it knows; what it knows it prefers, so its
logits of seen answers are lowered by a bias, which makes the harmonic mean highest on the
validation's images and held-out answers. The test's are looked at once.

\b
unseen_accuracy_cosine   of test questions whose answer was held out, all answers competing
unseen_interval          its 95 % interval, clustered by image, over all seeds
seen_accuracy_cosine     of test questions whose answer was trained on, with the same bias
harmonic_mean_cosine     of the two
unseen_without_bias      the first without the bias
among_unseen             of the same questions, only the held-out answers competing
chance, chance_among_unseen   one answer of all, or of the held-out ones
seeds                    the figures of each
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

import vqa_cache
from benchmarks.measuring.report import Report, json_option, reported
from benchmarks.systems import Chosen, encode
from data.shapes.dataset import Making, make
from train.config.files import load_experiment
from train.engine.data import hold_joined
from train.engine.outputs import EVALUATION_BATCH
from train.engine.step import forward
from train.inputs.batch import gather
from train.inputs.load import TrainingData, join_data
from train.inputs.parts import Part
from train.inputs.tables import answer_vectors, find_answer_table
from train.inputs.vocabulary import Vocabulary, count_answers
from train.loop.fit import Fitted, fit
from train.loop.training_loop import Watch
from train.metrics.clustered import clustered_interval
from vqa_cache.cache import Cache
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command

EXPERIMENT = Chosen("cosine_answers", ("features.dataset=shapes",))
MOST_FREQUENT = 0.01  # of the training questions: without the few most frequent, little is left
BIASES = 400
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """Which answers are trained on, and which are held out."""

    seen: list[str]
    validation: list[str]
    test: list[str]


@dataclass(frozen=True)
class Best:
    """Of n questions with an answer that competes: whether the best of the seen and of the unseen
    answers is right, by how much the seen one leads, whether the truth is unseen, and the image."""

    seen_right: Flags
    unseen_right: Flags
    lead: npt.NDArray[np.float64]
    unseen: Flags
    image: npt.NDArray[np.int64]

    def right(self, bias: float) -> Flags:
        """Which questions are answered rightly where seen answers are lowered by a bias."""
        return np.where(self.lead > bias, self.seen_right, self.unseen_right)

    def accuracies(self, bias: float) -> tuple[float, float]:
        """Of questions with a seen and with an unseen answer."""
        right = self.right(bias)
        return float(right[~self.unseen].mean()), float(right[self.unseen].mean())


def choose(counts: Mapping[str, int], k: int, held_out: int, seed: int) -> Answers:
    """Hold out answers for a validation and a test. Raises ClickException where too few remain."""
    ranked = sorted(counts, key=lambda text: (-counts[text], text))[:k]
    limit = MOST_FREQUENT * sum(counts.values())
    rare = [text for text in ranked if counts[text] <= limit]
    if len(rare) < 3 * held_out:
        raise click.ClickException(
            f"{len(rare)} answers are rare enough to be held out, expected {3 * held_out} at least "
            f"for twice {held_out}: make more --questions, or lower --held-out"
        )
    drawn = np.random.default_rng(seed).permutation(len(rare))[: 2 * held_out].tolist()
    validation, test = ([rare[i] for i in half] for half in (drawn[:held_out], drawn[held_out:]))
    out = {*validation, *test}
    return Answers([text for text in ranked if text not in out], validation, test)


def best_of(
    fitted: Fitted, data: TrainingData, part: Part, seen: list[str], unseen: list[str]
) -> Best:
    """What the head says about a part's questions, offered unseen answers behind the seen ones."""
    texts = Vocabulary((*seen, *unseen))
    truth = torch.from_numpy(texts.truths(part.joined.answer, part.joined.split.answer_texts))
    competing = ((truth >= 0) & (truth < len(texts))).nonzero()[:, 0]
    tops = []
    fitted.model.eval()
    with torch.no_grad():
        for span in competing.split(EVALUATION_BATCH):
            logits = forward(fitted.model, gather(part, data.tables, span), data.precision)
            halves = logits.cpu().split([len(seen), len(unseen)], dim=1)
            tops.append([half.max(dim=1) for half in halves])
    (known, first), (new, second) = (
        (torch.cat([top[h].values for top in tops]), torch.cat([top[h].indices for top in tops]))
        for h in (0, 1)
    )
    own = truth[competing]
    if not ((own < len(seen)).any() and (own >= len(seen)).any()):
        raise click.ClickException(
            f"{part.name}: of {len(own):,} questions none has a seen answer, or none a held-out "
            "one; expected some of both: make more --questions"
        )
    return Best(
        (first == own).numpy(),
        (second + len(seen) == own).numpy(),
        (known - new).double().numpy(),
        (own >= len(seen)).numpy(),
        part.joined.image[competing.numpy()],
    )


def best_bias(best: Best) -> float:
    """The bias with the highest harmonic mean of both accuracies."""
    biases = np.quantile(best.lead, np.linspace(0, 1, BIASES))
    return float(max(biases, key=lambda bias: harmonic(*best.accuracies(float(bias)))))


def harmonic(a: float, b: float) -> float:
    """Mean of two shares, 0 where one is."""
    return 2 * a * b / (a + b) if a + b else 0.0


def one_seed(
    cache: Cache, folder: Path, held_out: int, typed: tuple[str, ...], seed: int
) -> tuple[dict[str, float], Best, float]:
    """Train without the held-out answers; figures, what was said of the test, and the bias."""
    experiment = load_experiment(EXPERIMENT.name, [*typed, f"seed={seed}"])
    train = join_data(experiment, cache).splits["train"]
    counts = count_answers(train.answer, train.split.answer_texts, normalised=False)
    answers = choose(counts, experiment.config.answers.k, held_out, seed)
    config = experiment.config
    chosen = config.answers.model_copy(
        update={"vocabulary": answers.seen, "k": len(answers.seen), "other": "drop"}
    )
    experiment = replace(experiment, config=config.model_copy(update={"answers": chosen}))
    data = hold_joined(join_data(experiment, cache))
    watch = Watch(Console(quiet=True))
    fitted = fit(
        experiment.config, data, modalities=data.tables, what="", folder=folder, watch=watch
    )
    table = find_answer_table(cache, experiment.config, experiment.precompute)
    assert table is not None
    assert data.answer_vectors is not None
    found = {}
    for name, unseen in (("val", answers.validation), ("test", answers.test)):
        vectors = answer_vectors(table, [*answers.seen, *unseen], experiment.precompute)
        fitted.model.head.offer(vectors, data.answer_vectors)  # type: ignore[operator]
        found[name] = best_of(fitted, data, data.parts[name], answers.seen, unseen)
    bias, test = best_bias(found["val"]), found["test"]
    seen, unseen_accuracy = test.accuracies(bias)
    figures = {
        "unseen": unseen_accuracy,
        "seen": seen,
        "harmonic_mean": harmonic(seen, unseen_accuracy),
        "unseen_without_bias": test.accuracies(0.0)[1],
        "among_unseen": float(test.unseen_right[test.unseen].mean()),
        "chance": 1 / (len(answers.seen) + held_out),
        "n_unseen": int(test.unseen.sum()),
        "bias": bias,
    }
    return figures, test, bias


@click.command("open_vocabulary", cls=Command, help=__doc__)
@click.option("--images", default=5_000, show_default=True)
@click.option("--questions", default=50_000, show_default=True)
@click.option("--held-out", default=100, show_default=True, help="Answers for the test.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--epochs", type=int, help="Of the training; by default the experiment's.")
@json_option
def command(
    images: int, questions: int, held_out: int, seeds: int, epochs: int | None, as_json: bool
) -> None:
    """`python -m benchmarks open_vocabulary`."""
    keep_freed_memory()
    typed = EXPERIMENT.typed + ((f"train.epochs={epochs}",) if epochs else ())
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as folder:
        shapes, cache = Path(folder) / "shapes", Path(folder) / "cache"
        report.begin("stage 1")
        make(shapes, Making(images, questions))
        encode([EXPERIMENT], {"shapes": shapes}, cache)
        measure(report, cache, Path(folder), typed, held_out=held_out, seeds=seeds)


def measure(
    report: Report,
    cache: Path,
    folder: Path,
    typed: tuple[str, ...],
    *,
    held_out: int,
    seeds: int,
) -> None:
    """Fill the report from a cache; what is trained belongs in the folder."""
    opened = vqa_cache.open(cache)
    rows: list[dict[str, float]] = []
    right, image = [], []
    for seed in range(seeds):
        report.begin(f"seed {seed}")
        row, test, bias = one_seed(opened, folder / f"seed{seed}", held_out, typed, seed)
        rows.append(row)
        right.append(test.right(bias)[test.unseen])
        image.append(test.image[test.unseen])
        report.figures |= _figures(rows, held_out, np.concatenate(right), np.concatenate(image))


def _figures(
    rows: list[dict[str, float]], held_out: int, right: Flags, image: npt.NDArray[np.int64]
) -> dict[str, Any]:
    means = {key: mean(row[key] for row in rows) for key in rows[0]}
    low, high = clustered_interval(right.astype(np.float64), image)
    return {
        "held_out": held_out,
        "unseen_accuracy_cosine": means["unseen"],
        "unseen_interval": [low, high],
        "seen_accuracy_cosine": means["seen"],
        "harmonic_mean_cosine": means["harmonic_mean"],
        "unseen_without_bias": means["unseen_without_bias"],
        "among_unseen": means["among_unseen"],
        "chance": means["chance"],
        "chance_among_unseen": 1 / held_out,
        "seeds": rows,
    }
