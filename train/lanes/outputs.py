"""What every lane says about all examples of a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from train.config.precisions import Precision
from train.engine.outputs import Outputs, evaluate
from train.inputs.batch import InputTable
from train.inputs.parts import Part
from train.inputs.resident import device_of
from train.lanes.stack import LaneModel
from train.losses import IGNORED


def run_lanes(
    model: LaneModel,
    part: Part,
    tables: Mapping[str, InputTable],
    precision: Precision,
    temperature: torch.Tensor,
    *,
    rows: int,
    stopping: Callable[[], bool],
) -> list[Outputs]:
    """The outputs of every lane, as `run_model` gives one model's.
    The five highest logits are not looked at.

    Args:
        temperature: what each lane's logits are divided by, [lanes].
        rows: examples at a time, which bounds memory: logits have a copy for each lane.

    Raises Stopped when `stopping`, asked between batches, is true.
    """
    n, lanes, device = len(part), len(model.seeds), device_of(tables)
    predicted = torch.empty((lanes, n), dtype=torch.int64, device=device)
    finite = torch.empty((lanes, n), dtype=torch.bool, device=device)
    cross_entropy = torch.empty((lanes, n), dtype=torch.float64, device=device)

    def add(place: torch.Tensor, logits: torch.Tensor, truth: torch.Tensor) -> None:
        best = logits.argmax(dim=-1)
        predicted[:, place] = best
        finite[:, place] = logits.gather(-1, best[..., None])[..., 0].isfinite()
        losses = functional.cross_entropy(
            logits.flatten(0, 1), truth.repeat(lanes), ignore_index=IGNORED, reduction="none"
        )
        known = losses.double().view(lanes, -1)
        cross_entropy[:, place] = known.masked_fill_(truth == IGNORED, torch.nan)

    evaluate(
        model, part, tables, precision, add,
        temperature=temperature[:, None, None], rows=rows, stopping=stopping,
    )  # fmt: skip
    unknown = torch.zeros(n, dtype=torch.bool).numpy()
    return [
        Outputs(answers.numpy(), losses.numpy(), unknown, good.numpy())
        for answers, losses, good in zip(
            predicted.cpu(), cross_entropy.cpu(), finite.cpu(), strict=True
        )
    ]
