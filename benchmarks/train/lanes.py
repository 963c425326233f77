"""Many small heads in one pass against as many single trainings."""

from __future__ import annotations

import torch

from benchmarks.measuring.turns import median, ratio, take_turns
from train.engine import optimizers, schedules
from train.engine.model import AnswerModel
from train.engine.step import TrainingStep
from train.fusion.concat import Concat
from train.heads.mlp import MlpHead
from train.inputs.specification import Input
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdamW
from train.lanes.stack import LaneModel
from train.lanes.step import LaneStep
from train.losses.cross_entropy import CrossEntropy

LANES, INPUTS, HIDDEN, ANSWERS, BATCH = 32, 256, 64, 100, 256
STEPS = 20  # of a turn


def lanes_against_single_runs(rounds: int, lanes: int = LANES) -> dict[str, float]:
    """Heads 256 -> 64 -> 100 at batch 256: steps of all heads a second, in fp32."""
    inputs, answers = {"x": Input(torch.randn(BATCH, INPUTS))}, torch.randint(ANSWERS, (BATCH,))
    schedule = schedules.constant(10**6)
    singles = [
        TrainingStep(
            model,
            CrossEntropy(),
            optimizers.AdamW(model, lr=1e-3),
            schedule=schedule,
            seed=seed,
        )
        for seed, model in enumerate(heads(lanes))
    ]
    model = LaneModel(heads(lanes), list(range(lanes)))
    rates = torch.full((lanes,), 1e-3, dtype=torch.float64)
    optimizer = LaneAdamW(
        model.parameters(), model.decays, lr=rates, weight_decay=torch.full_like(rates, 0.01)
    )
    losses = LaneCrossEntropy([CrossEntropy() for _ in range(lanes)])
    step = LaneStep(model, losses, optimizer, schedule=schedule)

    def together() -> float:
        for number in range(STEPS):
            step(inputs, answers, number)
        return float(STEPS * lanes)

    def alone() -> float:
        for number in range(STEPS):
            for single in singles:
                single(inputs, answers, number)
        return float(STEPS * lanes)

    speeds = take_turns({"lanes": together, "single": alone}, rounds=rounds)
    return {
        f"lanes{lanes}_small": ratio(speeds, "lanes", "single"),
        f"lanes{lanes}_small_head_steps_per_second": median(speeds, "lanes"),
    }


def heads(count: int) -> list[AnswerModel]:
    """As many models of one shape, each with weights of its own."""
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(AnswerModel(Concat({"x": INPUTS}), MlpHead(INPUTS, ANSWERS, hidden=[HIDDEN])))
    return models
