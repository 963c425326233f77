"""Heads that look at a grid of positions: batches by image against a full shuffle.

Random rows at the shape of VQA v2's: 5.36 questions an image, a grid of 7x7 positions of 1,280,
questions of 14 words, 1,000 answers, batch 512. What `_vs_` compares takes turns in one run; a
figure is the median over the rounds, in fp32 on a processor.

\b
NAME_by_image_vs_full   samples a second of `train.order = by_image` against `full`
NAME_vs_limit           our loop by image against its own step on one batch that lies ready
NAME_samples_per_second of our loop by image
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import torch

from benchmarks.measuring.report import json_option, reported
from benchmarks.measuring.turns import median, ratio, take_turns
from train.attention.mcan import CoAttention
from train.attention.multi_query import MultiQueryAttention
from train.attention.stacked import StackedAttention
from train.engine.model import AnswerModel
from train.engine.optimizers import AdamW
from train.engine.schedules import constant
from train.engine.step import TrainingStep
from train.fusion.concat import Concat
from train.heads.linear import LinearHead
from train.inputs.batch import InputTable, batches_of
from train.inputs.device import environment
from train.inputs.normaliser import Normaliser
from train.inputs.order import By, SampleOrder
from train.inputs.positions import PositionTable
from train.inputs.resident import ItemRows, ResidentTable
from train.inputs.specification import Grid, Vector, Words
from train.losses.cross_entropy import CrossEntropy
from train.questions.word_lstm import WordLstm
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

GRID = Grid(7, 7, 1280)
TEXT, WORDS, VOCABULARY, ANSWERS, BATCH = 384, 14, 5_000, 1_000, 512
QUESTIONS_AN_IMAGE = 443_757 / 82_783
HEADS = ("stacked", "multi_query", "mcan")


@dataclass(frozen=True)
class Rows:
    """Random rows in memory, and which of them each example has."""

    part: Any
    truth: torch.Tensor
    tables: dict[str, InputTable]


def random_rows(images: int, head: str) -> Rows:
    """So many images with their questions; of `mcan` the words of questions, else a vector."""
    draw = torch.Generator().manual_seed(0)
    examples = round(images * QUESTIONS_AN_IMAGE)
    image = torch.randint(images, (examples,), generator=draw)
    grid = torch.randn((images, GRID.longest * GRID.d), generator=draw)
    tables: dict[str, InputTable] = {
        "image": ResidentTable(grid, np.arange(images), Normaliser("none"), specification=GRID)
    }
    if head == "mcan":
        ids = torch.randint(2, VOCABULARY, (examples * WORDS,), generator=draw)
        count = torch.full((examples,), WORDS)
        begin = count.cumsum(0) - count
        tables["text"] = PositionTable(ids, begin, count, Words(VOCABULARY, WORDS))
    else:
        rows = torch.randn((examples, TEXT), generator=draw)
        tables["text"] = ResidentTable(rows, np.arange(examples), Normaliser("none"))
    items = {"image": ItemRows(image), "text": ItemRows(torch.arange(examples))}
    part = SimpleNamespace(items=items, joined=SimpleNamespace(image=image.numpy()))
    return Rows(part, torch.randint(ANSWERS, (examples,), generator=draw), tables)


def step_of(head: str) -> TrainingStep:
    """A training step of an attention, concatenated with its question, and a linear head."""
    torch.manual_seed(0)
    question: Any = None
    asked, states = Vector(TEXT), None
    if head == "mcan":
        question = WordLstm(Words(VOCABULARY, WORDS), dim=300, hidden=512)
        asked, states = question.gives, question.states
        attention: Any = CoAttention(GRID, asked, states)
    else:
        made = StackedAttention if head == "stacked" else MultiQueryAttention
        attention = made(GRID, asked, states)
    fusion = Concat({"image": attention.gives.d, "text": asked.d})
    answers = LinearHead(fusion.out_features, ANSWERS)
    model = AnswerModel(fusion, answers, question=question, attention=attention)
    optimizer = AdamW(model, lr=1e-4)
    return TrainingStep(model, CrossEntropy(), optimizer, schedule=constant(10**6), seed=0)


def loop_of(rows: Rows, step: TrainingStep, by: By, steps: int) -> Callable[[], float]:
    """A turn of our loop: so many batches of the order; its examples."""
    order = SampleOrder(
        rows.part, rows.tables, torch.arange(len(rows.truth)), batch_size=BATCH, data_seed=0, by=by
    )
    shared = ["image"] if by == "by_image" else []
    batch = batches_of(rows.part, rows.truth, rows.tables, shared)
    state = {"step": 0}

    def turn() -> float:
        seen = 0
        for _ in range(steps):
            epoch, number = divmod(state["step"], order.steps)
            examples = order.batch(epoch, number)
            step(*batch(examples), state["step"])
            state["step"] += 1
            seen += len(examples)
        return float(seen)

    return turn


def limit_of(rows: Rows, step: TrainingStep, steps: int) -> Callable[[], float]:
    """The step alone on a batch by image that lies ready."""
    order = SampleOrder(
        rows.part, rows.tables, torch.arange(len(rows.truth)), batch_size=BATCH, data_seed=0,
        by="by_image",
    )  # fmt: skip
    examples = order.batch(0, 0)
    ready = batches_of(rows.part, rows.truth, rows.tables, ["image"])(examples)

    def turn() -> float:
        for _ in range(steps):
            step(*ready, 0)
        return float(steps * len(examples))

    return turn


def measured(head: str, images: int, steps: int, rounds: int) -> dict[str, float]:
    """The figures of one head."""
    rows, step = random_rows(images, head), step_of(head)
    work = {
        "full": loop_of(rows, step, "full", steps),
        "by_image": loop_of(rows, step, "by_image", steps),
        "limit": limit_of(rows, step, steps),
    }
    speeds = take_turns(work, rounds=rounds)
    return {
        f"{head}_by_image_vs_full": ratio(speeds, "by_image", "full"),
        f"{head}_vs_limit": ratio(speeds, "by_image", "limit"),
        f"{head}_samples_per_second": median(speeds, "by_image"),
    }


@click.command("attention", cls=Command, help=__doc__)
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Batches in a turn.")
@click.option("--images", default=2_000, show_default=True, help="Rows of the grid in memory.")
@click.option("--only", type=click.Choice(HEADS), help="One head alone.")
@json_option
def command(rounds: int, steps: int, images: int, only: str | None, as_json: bool) -> None:
    keep_freed_memory()
    """`python -m benchmarks attention`."""
    with reported(as_json=as_json) as report:
        for head in [only] if only else HEADS:
            report.begin(f"{head}: by image, in full, and its limit")
            report.figures |= measured(head, images, steps, rounds)
        report.figures["environment"] = environment(CPU)
