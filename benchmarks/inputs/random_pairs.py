"""Random rows of images and questions in memory, as many and as often asked as in a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from train.config.precisions import COMPUTE_TYPES, Precision
from train.inputs.normaliser import Normaliser
from train.inputs.resident import ItemRows, ResidentTable


@dataclass(frozen=True)
class Counts:
    """How large a dataset is: rows, their widths, examples of a part, answers."""

    images: int
    questions: int
    examples: int
    answers: int
    image_width: int
    text_width: int

    @property
    def widths(self) -> dict[str, int]:
        """Name of an input -> numbers of a row."""
        return {"image": self.image_width, "text": self.text_width}


class Pairs:
    """A part of such a dataset, as trainings and evaluations read one.

    Attributes:
        items, truth, joined, unanswerable: as of `train.inputs.parts.Part`.
        tables: of both modalities, in memory.
    """

    unanswerable = None

    def __init__(self, counts: Counts, precision: Precision = "fp32", seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        rows = {"image": counts.images, "text": counts.questions}
        self.tables: Any = {
            name: ResidentTable(
                torch.randn((rows[name], width), generator=draw),
                np.arange(rows[name]),
                Normaliser("none"),
                compute_type=COMPUTE_TYPES[precision],
            )
            for name, width in counts.widths.items()
        }
        self.items = {
            name: ItemRows(torch.randint(count, (counts.examples,), generator=draw))
            for name, count in rows.items()
        }
        self.truth = torch.randint(counts.answers, (counts.examples,), generator=draw)
        self.joined = SimpleNamespace(image=self.items["image"].rows.numpy())

    def __len__(self) -> int:
        return len(self.truth)
