"""When a training is evaluated and saved, and which of its evaluations is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """How good the weights after so many steps are on the selection part.

    Attributes:
        accuracy: 0 to 1.
        cross_entropy: nats, decides between equals; infinite where it has no value.
    """

    step: int
    accuracy: float
    cross_entropy: float

    def beats(self, other: Score | None) -> bool:
        """Whether these weights are to be preferred; of equals the earlier ones stay."""
        if other is None or self.accuracy != other.accuracy:
            return other is None or self.accuracy > other.accuracy
        return self.cross_entropy < other.cross_entropy

    def as_json(self) -> dict[str, Any]:
        """JSON has no infinity: null stands for it."""
        finite = math.isfinite(self.cross_entropy)
        return {
            "step": self.step,
            "accuracy": self.accuracy,
            "cross_entropy": self.cross_entropy if finite else None,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | None) -> Score | None:
        """The inverse of `as_json`."""
        if found is None:
            return None
        nats = found["cross_entropy"]
        return cls(found["step"], found["accuracy"], math.inf if nats is None else nats)


def score_of(values: Mapping[str, float | None], step: int) -> Score | None:
    """The score of an evaluation's metrics; None where the model's outputs are not finite."""
    accuracy, nats = values["accuracy"], values["cross_entropy"]
    if accuracy is None:  # not for want of labels: load_data refuses a selection part without
        return None
    return Score(step, accuracy, math.inf if nats is None else nats)


def milestones(every: float, *, steps_per_epoch: int, total: int) -> frozenset[int]:
    """Steps after which something is due: every so many epochs (a fraction is allowed, 0 = never),
    at most after every step, and after the last."""
    if not every:
        return frozenset()
    pace = max(1.0, every * steps_per_epoch)
    due = {round(count * pace) for count in range(1, int(total / pace) + 1)}
    return frozenset({*due, total})


def epochs_done(step: int, steps_per_epoch: int) -> int | float:
    """Steps as epochs: a whole number where it is one."""
    epochs, rest = divmod(step, steps_per_epoch)
    return epochs if not rest else round(step / steps_per_epoch, 4)
