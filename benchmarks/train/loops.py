"""Our training loop against loops as people write them by hand."""

from __future__ import annotations

from torch import nn

from benchmarks.measuring.turns import median, ratio, take_turns
from benchmarks.peers.journal_loops import journal_loop, tensor_dataset_loop
from benchmarks.train.bench import Bench, looping, repeated
from train.engine.build import build_model


def against_journal(bench: Bench, head: str, batch_size: int = 5000) -> dict[str, float]:
    """Our loop against the loop of the journals."""
    training = bench.training(head, batch_size)
    model = build_model(training.config, bench.data, bench.data.tables)
    theirs = journal_loop(bench.data, model.head, batch_size)
    ours = repeated(looping(training), batch_size)
    speeds = take_turns({"loop": ours, "journal": theirs}, rounds=max(2, bench.rounds // 2))
    key = f"{head}_b{batch_size}"
    return {
        f"{key}_vs_journal_loop": ratio(speeds, "loop", "journal"),
        f"{key}_journal_samples_per_second": median(speeds, "journal"),
    }


def against_tensor_dataset(bench: Bench, batch_size: int = 400) -> dict[str, float]:
    """Our loop against a DataLoader over a TensorDataset."""
    training = bench.training("linear", batch_size)
    theirs = tensor_dataset_loop(bench.data, nn.Linear(1536, 1000), batch_size)
    ours = repeated(looping(training), batch_size)
    speeds = take_turns({"loop": ours, "tensors": theirs}, rounds=bench.rounds)
    return {f"linear_b{batch_size}_vs_tensordataset": ratio(speeds, "loop", "tensors")}
