"""Data of VQA v2's size in one file, made of random rows with labels that a head can learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.inputs.sizes import WIDTH, Sizes
from train.config.precisions import COMPUTE_TYPES, Precision
from train.config.seeds import epoch_order
from train.inputs.batch import batches_of
from train.inputs.normaliser import Normaliser
from train.inputs.resident import ItemRows, ResidentTable
from train.inputs.specification import Batch


def write_data(path: Path, sizes: Sizes) -> None:
    """Rows of both tables in float16; of each split the rows and answers of its examples. The kinds
    of image and question say the answer, a row is its kind's centre and noise."""
    draw = torch.Generator().manual_seed(0)
    total = sum(sizes.images.values())
    image_kind = torch.randint(sizes.image_kinds, (total,), generator=draw)
    text_kind = torch.randint(sizes.question_kinds, (sizes.distinct_questions,), generator=draw)
    shape = (sizes.image_kinds, sizes.question_kinds)
    answer = torch.randint(sizes.answers, shape, generator=draw)
    tensors = {"answers": torch.tensor(sizes.answers)}
    for modality, kind in (("image", image_kind), ("text", text_kind)):
        centres = torch.randn(int(kind.max()) + 1, WIDTH, generator=draw)
        noise = torch.randn(len(kind), WIDTH, generator=draw)
        tensors[modality] = noise.add_(centres[kind]).half()
    first = 0
    for split, count in sizes.questions.items():
        image = first + torch.randint(sizes.images[split], (count,), generator=draw)
        text = torch.randint(sizes.distinct_questions, (count,), generator=draw)
        tensors |= {f"{split}.image": image, f"{split}.text": text}
        tensors[f"{split}.truth"] = answer[image_kind[image], text_kind[text]]
        first += sizes.images[split]
    save_file(tensors, path)


@dataclass(frozen=True)
class Split:
    """Examples on the device: the rows of each in both tables, and its answer."""

    items: dict[str, ItemRows]
    truth: torch.Tensor


class Data:
    """The tables and both splits, on the device in the type of a precision."""

    def __init__(self, path: Path, device: torch.device, precision: Precision) -> None:
        tensors = load_file(path)
        self.device = device
        self.precision = precision
        self.answers = int(tensors["answers"])
        self.tables = {
            modality: ResidentTable(
                tensors[modality],
                np.arange(len(tensors[modality])),
                Normaliser("none"),
                compute_type=COMPUTE_TYPES[precision],
                home=device,
                device=device,
            )
            for modality in ("image", "text")
        }
        self.splits = {
            split: Split(
                {name: ItemRows(tensors[f"{split}.{name}"].to(device)) for name in self.tables},
                tensors[f"{split}.truth"].to(device),
            )
            for split in ("train", "val")
        }

    def batch(self, split: str, examples: torch.Tensor) -> Batch:
        """Inputs and targets of examples, int64 [batch] on the device."""
        chosen = self.splits[split]
        return batches_of(chosen, chosen.truth, self.tables)(examples)

    def train_batch(self, examples: torch.Tensor) -> Batch:
        """Of the training split."""
        return self.batch("train", examples)

    def batches(self, size: int, epoch: int = 0) -> list[torch.Tensor]:
        """The examples of an epoch's batches; the last one may be smaller."""
        order = epoch_order(len(self.splits["train"].truth), data_seed=0, epoch=epoch)
        return list(order.to(self.device).split(size))
