"""Names inside a runs folder, for those who write run folders and those who only look at them.

<runs>/<run_id>/          one run, see folder.py
<runs>/<sweep_id>/        one sweep: sweep.toml, and trials.jsonl with a line a finished trial
<runs>/queue/             trainings that wait, see queue.py; <job>.log holds what a job printed
<runs>/registry.sqlite    index of the runs and sweeps
<runs>/commands.json      which finished run a command led to, see remembered.py
"""

from __future__ import annotations

RESULT, CONFIG, IDENTITY, METRICS = "result.json", "config.toml", "identity.json", "metrics.jsonl"
CHECKPOINTS, DESCRIPTION, BEST = "checkpoints", "model.json", "best"
PREDICTIONS, SUBSTITUTES = "predictions.{split}.json", "substitutes.{split}.json"
TOP_ANSWERS = "predictions.{split}.csv"
CURVE = "curve.png"  # of its epochs, for people
VALIDATIONS = "validations.jsonl"  # figures of snapshots that were evaluated later, a line each
FAILURE = "failure.txt"  # why a training ended without a result
SWEEP, TRIALS = "sweep.toml", "trials.jsonl"
REGISTRY, QUEUE, COMMANDS = "registry.sqlite", "queue", "commands.json"
