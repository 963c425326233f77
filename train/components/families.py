"""The families of components, and the plain dict in which each of them names its members.

A family is known here by where its dict stands, not by an import: checking a configuration loads
only what it names, and this room stays below those that it names.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from train.components.lookup import Factory, find_factory


@dataclass(frozen=True)
class Family:
    """Components that can stand for each other.

    Attributes:
        kind: what one of them is called; the section of an experiment that chooses it.
        room: the module in which the dict stands, and its name there.
    """

    kind: str
    room: str
    members: str

    def names(self) -> Mapping[str, str]:
        """Name -> "module:factory" of those that ship."""
        known: Mapping[str, str] = getattr(importlib.import_module(self.room), self.members)
        return known

    def find(self, name: str) -> Factory:
        """The member of that name. Raises TrainError with the known ones."""
        return find_factory(self.names(), name, self.kind)


QUESTION = Family("question", "train.questions", "QUESTIONS")
ATTENTION = Family("attention", "train.attention", "ATTENTIONS")
FUSION = Family("fusion", "train.fusion", "FUSIONS")
HEAD = Family("head", "train.heads", "HEADS")
LOSS = Family("loss", "train.losses", "LOSSES")
OPTIMIZER = Family("optimizer", "train.engine.optimizers", "OPTIMIZERS")
SCHEDULE = Family("schedule", "train.engine.schedules", "SCHEDULES")
METRIC = Family("metric", "train.metrics.classification", "METRICS")

# those that a section of an experiment chooses
CHOSEN = {family.kind: family for family in (
    QUESTION, ATTENTION, FUSION, HEAD, LOSS, OPTIMIZER, SCHEDULE
)}  # fmt: skip
