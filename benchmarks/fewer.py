"""What is gained by multiplying each distinct row of a batch once.

Random rows, as many of them and as often repeated as in VQA v2 (443,757 questions about 82,783
images, 150,000 texts, rows of 768 and 768, 1,000 answers; batch 5,000) and in easy-VQA (38,575
questions about 4,000 images, 107 texts, rows of 1,280 and 384, 13 answers; batch 2,048). HEAD is
`linear`, `mlp1536` (1,536 hidden, batch normalisation, dropout 0.5 behind it; `mlp` of easy-VQA:
two layers of 256) or `cosine` (against rows of 768). What takes turns is compared by the median.

\b
HEAD_vqa2_by_image_vs_full      samples a second of `train.order = by_image` against `full`
HEAD_easy_vqa_vs_unfactorised   a full shuffle with and without the sharing of rows
HEAD_journal_loop_ratio         our loop by image against dict Dataset, DataLoader, fp32, Adam
validation_share                a pass over 214,354 validation examples (40,504 images) beside an
                                epoch of training in full order, linear head
pca256_vs_full                  the MLP on inputs of 256 + 256 against 1,280 + 384
cold_start_seconds              `python -m train cosine_answers` to the end of its first step, every
                                import among it, on a cache of easy-VQA's counts
lanes128_vs_single              128 small heads in one pass against as many single trainings
HEAD_equal_losses               largest relative difference of a loss in 200 fp32 steps between
                                shared and plain rows
HEAD_other_order                the same between plain rows and plain rows with their columns in
                                another order: what rounding alone does to this training
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import torch
from torch import nn

from benchmarks.inputs.random_pairs import Counts, Pairs
from benchmarks.inputs.scale_cache import make_scale_cache
from benchmarks.inputs.sizes import Sizes
from benchmarks.measuring.report import json_option, reported
from benchmarks.measuring.turns import median, ratio, take_turns
from benchmarks.peers.journal_loops import journal_loop
from benchmarks.train.first_step import cold_start_seconds
from benchmarks.train.lanes import lanes_against_single_runs
from train.config.precisions import Precision
from train.engine.model import AnswerModel
from train.engine.optimizers import AdamW
from train.engine.outputs import run_model
from train.engine.schedules import constant
from train.engine.sharing import find_sharing
from train.engine.step import TrainingStep
from train.fusion.concat import Concat
from train.heads.cosine import CosineHead
from train.heads.linear import LinearHead
from train.heads.mlp import MlpHead
from train.inputs.batch import batches_of
from train.inputs.device import environment
from train.inputs.order import By, SampleOrder
from train.losses.cross_entropy import CrossEntropy
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

VQA2 = Counts(82_783, 150_000, 443_757, 1_000, 768, 768)
VQA2_VALIDATION = Counts(40_504, 150_000, 214_354, 1_000, 768, 768)
EASY_VQA = Counts(4_000, 107, 38_575, 13, 1_280, 384)
NARROW = Counts(4_000, 107, 38_575, 13, 256, 256)
BATCH, EASY_BATCH = 5_000, 2_048
EASY_SPLITS = Sizes(
    {"train": 4_000, "test": 1_000}, {"train": 38_575, "test": 9_673},
    distinct_questions=107, answers=13,
)  # fmt: skip
PARTS = ("vqa2", "easy_vqa", "journal", "validation", "pca", "lanes", "equal", "start")
HEADS = ("linear", "mlp1536", "cosine")


def model_of(head: str, counts: Counts) -> AnswerModel:
    """A head over image and question side by side, with seeded weights."""
    torch.manual_seed(0)
    fusion = Concat(counts.widths)
    width = fusion.out_features
    made: nn.Module
    if head == "linear":
        made = LinearHead(width, counts.answers)
    elif head == "cosine":
        made = CosineHead(width, counts.answers, torch.randn(counts.answers, 768), hidden=[])
    else:
        hidden = [1536] if head == "mlp1536" else [256, 256]
        dropout = 0.5 if head == "mlp1536" else 0.2
        made = MlpHead(width, counts.answers, hidden=hidden, dropout=dropout, batch_norm=True)
    return AnswerModel(fusion, made)


class Loop:
    """Steps of a training over random rows; `shared` None finds out what is shared."""

    def __init__(
        self,
        head: str,
        pairs: Pairs,
        counts: Counts,
        *,
        by: By = "full",
        batch_size: int = BATCH,
        precision: Precision = "fp32",
        shared: Collection[str] | None = None,
    ) -> None:
        model = model_of(head, counts)
        self.order = SampleOrder(
            cast(Any, pairs), pairs.tables, torch.arange(len(pairs)), batch_size=batch_size,
            data_seed=0, by=by,
        )  # fmt: skip
        if shared is None:
            shared = find_sharing(model, pairs, pairs.tables, self.order, precision).names
        self.batch = batches_of(pairs, pairs.truth, pairs.tables, shared)
        self.step = TrainingStep(
            model, CrossEntropy(), AdamW(model, lr=1e-4), schedule=constant(10**6), seed=0,
            precision=precision,
        )  # fmt: skip
        self.done = 0

    def train_step(self) -> tuple[int, torch.Tensor]:
        """How many examples the next step trains on, and their loss."""
        examples = self.order.batch(*divmod(self.done, self.order.steps))
        loss = self.step(*self.batch(examples), self.done)
        self.done += 1
        return len(examples), loss

    def turn(self, steps: int) -> Callable[[], float]:
        """So many steps; their examples."""
        return lambda: float(sum(self.train_step()[0] for _ in range(steps)))


def on_vqa2(
    heads: Collection[str], pairs: Pairs, precision: Precision, rounds: int, steps: int
) -> dict[str, float]:
    """By image against in full."""
    found = {}
    for head in heads:
        orders: tuple[By, By] = ("by_image", "full")
        loops = {by: Loop(head, pairs, VQA2, by=by, precision=precision) for by in orders}
        speeds = take_turns({by: one.turn(steps) for by, one in loops.items()}, rounds=rounds)
        found[f"{head}_vqa2_by_image_vs_full"] = ratio(speeds, "by_image", "full")
        found[f"{head}_vqa2_samples_per_second"] = median(speeds, "by_image")
    return found


def on_easy_vqa(precision: Precision, rounds: int, steps: int) -> dict[str, float]:
    """A full shuffle with and without the sharing of rows."""
    pairs, found = Pairs(EASY_VQA, precision), {}
    for head in ("linear", "mlp"):
        given: Any = {"batch_size": EASY_BATCH, "precision": precision}
        work = {
            "shared": Loop(head, pairs, EASY_VQA, **given).turn(4 * steps),
            "plain": Loop(head, pairs, EASY_VQA, shared=(), **given).turn(4 * steps),
        }
        speeds = take_turns(work, rounds=rounds)
        found[f"{head}_easy_vqa_vs_unfactorised"] = ratio(speeds, "shared", "plain")
        found[f"{head}_easy_vqa_samples_per_second"] = median(speeds, "shared")
    return found


def against_journal(
    heads: Collection[str], pairs: Pairs, precision: Precision, rounds: int, steps: int
) -> dict[str, float]:
    """By image against the loop of the journals, which computes in fp32."""
    found = {}
    for head in heads:
        data: Any = SimpleNamespace(parts={"train": pairs}, tables=pairs.tables)
        work = {
            "ours": Loop(head, pairs, VQA2, by="by_image", precision=precision).turn(steps),
            "journal": journal_loop(data, model_of(head, VQA2).head, BATCH),
        }
        speeds = take_turns(work, rounds=rounds)
        found[f"{head}_journal_loop_ratio"] = ratio(speeds, "ours", "journal")
    return found


def validation(pairs: Pairs, precision: Precision, rounds: int, steps: int) -> dict[str, float]:
    """A pass over the validation part beside an epoch of training in full order."""
    loop = Loop("linear", pairs, VQA2, precision=precision)
    part = Pairs(VQA2_VALIDATION, precision, seed=1)
    model = model_of("linear", VQA2)

    def evaluate() -> float:
        run_model(model, cast(Any, part), part.tables, precision)
        return float(len(part))

    speeds = take_turns({"evaluate": evaluate, "train": loop.turn(steps)}, rounds=rounds)
    share = len(part) / len(pairs) * ratio(speeds, "train", "evaluate")
    return {
        "validation_share": round(share, 4),
        "validation_samples_per_second": median(speeds, "evaluate"),
    }


def narrower(precision: Precision, rounds: int, steps: int) -> dict[str, float]:
    """An MLP on inputs of 256 each against the whole rows, in full order."""
    work = {
        name: Loop(
            "mlp", Pairs(counts, precision), counts, batch_size=EASY_BATCH, precision=precision
        ).turn(4 * steps)
        for name, counts in (("narrow", NARROW), ("whole", EASY_VQA))
    }
    speeds = take_turns(work, rounds=rounds)
    return {"pca256_vs_full": ratio(speeds, "narrow", "whole")}


def equal_losses(steps: int = 200) -> dict[str, float]:
    """Shared rows in fp32, and the sums of plain ones in another order, against plain rows; a small
    part of easy-VQA's form."""
    counts = Counts(300, 107, 3_000, 13, 1_280, 384)
    pairs, figures = Pairs(counts), {}
    for head in ("linear", "mlp", "cosine"):
        plain, shared, other = (
            Loop(head, pairs, counts, batch_size=256, shared=names)
            for names in ((), ("image", "text"), ())
        )
        in_another_order(other.step.model)
        losses = [
            torch.stack([loop.train_step()[1] for _ in range(steps)])
            for loop in (plain, shared, other)
        ]
        for key, own in (("equal_losses", losses[1]), ("other_order", losses[2])):
            figures[f"{head}_{key}"] = float(((own - losses[0]).abs() / losses[0]).max())
    return figures


def in_another_order(model: Any) -> None:
    """The same function, whose first products are summed over their columns in another order."""
    first = next(module for module in model.head.modules() if isinstance(module, nn.Linear))
    order = torch.randperm(first.in_features)
    first.weight.data = first.weight.data[:, order]
    model.fusion.register_forward_hook(lambda module, given, fused: fused[:, order])


@click.command("fewer", cls=Command, help=__doc__)
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Batches in a turn.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="These figures alone.")
@json_option
def command(
    rounds: int, steps: int, precision: Precision, only: tuple[str, ...], as_json: bool
) -> None:
    """`python -m benchmarks fewer`."""
    keep_freed_memory()
    chosen = only or PARTS
    with reported(as_json=as_json) as report:
        given: Any = {"precision": precision, "rounds": rounds, "steps": steps}
        pairs = Pairs(VQA2, precision) if {"vqa2", "journal", "validation"} & {*chosen} else None
        if pairs is not None and "vqa2" in chosen:
            report.begin("VQA v2: by image and in full")
            report.figures |= on_vqa2(HEADS, pairs, **given)
        if "easy_vqa" in chosen:
            report.begin("easy-VQA: rows shared and not")
            report.figures |= on_easy_vqa(**given)
        if pairs is not None and "journal" in chosen:
            report.begin("the journals' loop")
            report.figures |= against_journal(("linear", "mlp1536"), pairs, **given)
        if pairs is not None and "validation" in chosen:
            report.begin("validation beside an epoch")
            report.figures |= validation(pairs, **given)
        if "pca" in chosen:
            report.begin("narrower rows")
            report.figures |= narrower(**given)
        if "lanes" in chosen:
            report.begin("128 heads in one pass")
            found = lanes_against_single_runs(rounds, lanes=128)
            report.figures["lanes128_vs_single"] = found["lanes128_small"]
        if "equal" in chosen:
            report.begin("equal losses")
            report.figures |= equal_losses()
        if "start" in chosen:
            report.begin("from nothing to the first step")
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                make_scale_cache(folder / "cache", EASY_SPLITS)
                report.figures["cold_start_seconds"] = cold_start_seconds(folder / "cache", folder)
        report.figures["environment"] = environment(CPU)
