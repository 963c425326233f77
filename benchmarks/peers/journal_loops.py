"""Training loops as people write them by hand, which stage 2 is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from train.inputs.batch import gather
from train.inputs.load import TrainingData

EXAMPLES = 100_000  # a part is enough: the time of a sample does not depend on their number


class DictDataset(Dataset[dict[str, torch.Tensor]]):
    """Looks an image and a question up for every example, as the journals' datasets did."""

    def __init__(self, data: TrainingData) -> None:
        part, tables = data.parts["train"], data.tables
        examples = torch.arange(min(len(part), EXAMPLES))
        self.rows = {modality: part.items[modality].rows[examples].tolist() for modality in tables}
        self.tables = {
            modality: dict(enumerate(table.all_rows().float()))
            for modality, table in tables.items()
        }
        self.answers = part.truth[examples].clamp(min=0)

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = {modality: self.tables[modality][rows[index]] for modality, rows in self.rows.items()}
        return {**row, "answer": self.answers[index]}


def journal_loop(data: TrainingData, head: nn.Module, batch_size: int) -> Callable[[], float]:
    """One batch a turn of: dict Dataset, DataLoader, fp32, Adam, the loss read every step."""
    loader = DataLoader(DictDataset(data), batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    batches = endless(loader)

    def turn() -> float:
        batch = next(batches)
        optimizer.zero_grad()
        logits = head(torch.cat([batch["image"], batch["text"]], dim=1))
        loss = functional.cross_entropy(logits, batch["answer"])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        return float(len(logits))

    return turn


def tensor_dataset_loop(
    data: TrainingData, head: nn.Module, batch_size: int
) -> Callable[[], float]:
    """Twenty batches a turn of: TensorDataset of joined rows, DataLoader, fp32, Adam."""
    part = data.parts["train"]
    examples = torch.arange(min(len(part), EXAMPLES))
    joined = torch.cat(
        [one.values for one in gather(part, data.tables, examples).values()], dim=1
    ).float()
    dataset = TensorDataset(joined, part.truth[examples].clamp(min=0))
    batches = endless(DataLoader(dataset, batch_size=batch_size, shuffle=True))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)

    def turn() -> float:
        samples = 0
        for _ in range(20):
            inputs, answers = next(batches)
            optimizer.zero_grad()
            functional.cross_entropy(head(inputs), answers).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            samples += len(inputs)
        return float(samples)

    return turn


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Batches of one epoch after another."""
    while True:
        yield from loader
