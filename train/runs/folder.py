"""Run folders: `runs/<run_id>/`.

    config.toml               the config, every default filled in
    identity.json             digests of config, data and code, which make up the id
    metrics.jsonl             a row per step and per evaluation; no clock in it
    checkpoints/best/         weights of the selected epoch (and snapshots beside it)
    events.out.tfevents.*     for TensorBoard
    lock                      held while a process trains the run
    predictions.<split>.json  VQA results format, every question of the split
    substitutes.<split>.json  those of them that the model did not answer: an item failed
    predictions.<split>.csv   the same for people: image, question, most probable answers
    result.json               what other programs read

A run is finished when it has `result.json`, which is written last.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config.files import to_toml
from train.config.identity import identity_of, run_id
from train.config.precisions import Precision
from train.config.schema import Config, Experiment
from train.errors import TrainError
from train.evaluation.evaluate import Predictions
from train.loop.layout import (
    CONFIG,
    FAILURE,
    IDENTITY,
    PREDICTIONS,
    RESULT,
    SUBSTITUTES,
    TOP_ANSWERS,
)
from vqa_cache.system.durable import remove, write_file


@dataclass(frozen=True)
class Run:
    """A finished run as read from its folder."""

    path: Path
    config: Config
    result: dict[str, Any]


def load_run(path: Path) -> Run:
    """Read a finished run. Raises TrainError where there is none."""
    if not (path / RESULT).is_file():
        what = "it is not finished" if (path / CONFIG).is_file() else "no run is there"
        raise TrainError(f"run {path}: no {RESULT}; {what}")
    config = Config.model_validate(tomllib.loads((path / CONFIG).read_text(encoding="utf-8")))
    return Run(path, config, json.loads((path / RESULT).read_text(encoding="utf-8")))


def read_identity(path: Path) -> dict[str, Any] | None:
    """What a run says that it is; None where its `identity.json` is missing or damaged."""
    try:
        found = json.loads((path / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class RunFolder:
    """The folder of one run while it is being made."""

    def __init__(self, path: Path, identity: dict[str, str]) -> None:
        self.path = path
        self.identity = identity

    @property
    def finished(self) -> bool:
        """Whether it holds a result."""
        return (self.path / RESULT).is_file()

    @property
    def begun(self) -> bool:
        """Whether an earlier attempt left something."""
        return (self.path / IDENTITY).is_file()

    @property
    def precision(self) -> Precision | None:
        """What the run was begun in; None where it is new, or the file that says so is damaged."""
        kept: Precision | None = (read_identity(self.path) or {}).get("precision")
        return kept

    def begin(self, experiment: Experiment, precision: Precision) -> None:
        """Write what the run is, before anything else."""
        remove(self.path / FAILURE)
        identity = {**self.identity, "precision": precision}
        header = f"# {experiment.name}, every default filled in\n"
        write_file(self.path / CONFIG, (header + to_toml(experiment.config.values())).encode())
        write_file(self.path / IDENTITY, (json.dumps(identity, indent=1) + "\n").encode())

    def fail(self, error: TrainError) -> None:
        """Write down why the training ended."""
        write_file(self.path / FAILURE, f"{error}\n".encode())

    def write_predictions(self, split: str, found: Predictions) -> None:
        """Write predictions.<split>.json, an object a line, the same with the most probable answers
        as predictions.<split>.csv, and where there are any, those answers that the model did not
        give as substitutes.<split>.json."""
        files = {PREDICTIONS: found.answers, SUBSTITUTES: found.substitutes}
        for name, chosen in files.items():
            path = self.path / name.format(split=split)
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in chosen)
            if chosen or name == PREDICTIONS:
                write_file(path, f"[{lines}]\n".encode())
            else:
                remove(path)
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(found.table)
        write_file(self.path / TOP_ANSWERS.format(split=split), table.getvalue().encode())

    def finish(self, result: dict[str, Any]) -> None:
        """Write result.json: from now on the run is finished."""
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
        write_file(self.path / RESULT, (text + "\n").encode())


def choose_folder(experiment: Experiment, data_digest: str, runs: Path, *, new: bool) -> RunFolder:
    """The folder of this run: the one that it already has, or with `new` the next free number."""
    identity = identity_of(experiment.config, data_digest)
    base = runs / run_id(experiment.name, identity)
    if not new or not base.exists():
        return RunFolder(base, identity)
    taken = [
        int(found.group(1))
        for path in runs.glob(f"{base.name}-*")
        if (found := re.fullmatch(rf"{re.escape(base.name)}-(\d+)", path.name))
    ]
    return RunFolder(runs / f"{base.name}-{max(taken, default=1) + 1}", identity)


def unfinished_with_other_code(experiment: Experiment, folder: RunFolder) -> list[str]:
    """A line for each unfinished run of the same experiment, config and data that other code began,
    and for each whose `identity.json` is damaged, so that nobody knows."""
    lines = []
    for path in sorted(folder.path.parent.glob(f"{experiment.name}-*/{IDENTITY}")):
        run = path.parent
        if (run / RESULT).exists():
            continue
        identity = read_identity(run)
        if identity is None:
            lines.append(f"{path} is damaged: {_left_alone(run, folder)}")
            continue
        same = all(identity.get(key) == folder.identity[key] for key in ("config", "data"))
        if same and identity.get("code") != folder.identity["code"]:
            lines.append(f"{run} is unfinished too, but other code began it: left alone")
    return lines


def _left_alone(run: Path, folder: RunFolder) -> str:
    return "written anew" if run == folder.path else "that unfinished run is passed over"
