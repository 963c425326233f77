"""What validation, metrics and a snapshot cost beside an epoch of training."""

from __future__ import annotations

from benchmarks.train.bench import Bench, timed
from train.engine.outputs import run_model
from train.evaluation.baselines import always
from train.evaluation.evaluate import measure


def shares(bench: Bench) -> dict[str, float]:
    """Validation, metrics and a snapshot against an epoch of training, linear head."""
    training = bench.training("linear", 5000)
    steps = training.per_epoch

    def train_epoch() -> None:
        for _ in range(steps):
            training.train_step()

    epoch_seconds = timed(train_epoch)
    validation = bench.data.parts["val"]
    outputs = always(validation, 0)

    def validate() -> None:
        nonlocal outputs
        outputs = run_model(training.model, validation, bench.data.tables, bench.data.precision)

    validation_seconds = timed(validate)
    vocabulary = bench.data.vocabulary
    metrics_seconds = timed(lambda: measure(validation, outputs, vocabulary))
    snapshot_seconds = timed(training.save)
    return {
        "epoch_seconds": round(epoch_seconds, 2),
        "validation_share": round(validation_seconds / epoch_seconds, 4),
        "metrics_share": round(metrics_seconds / epoch_seconds, 4),
        "snapshot_share": round(snapshot_seconds / epoch_seconds, 4),
    }
