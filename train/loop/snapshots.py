"""Snapshots of a training, from which an interrupted run goes on to the very same bytes.

    checkpoints/step-00000136/   weights, the optimiser's state, and where the training stood
    checkpoints/best-00000068/   the best weights so far, of the step in the name
    checkpoints/best/            the same once the training has ended

A snapshot names the best weights and the place in metrics.jsonl that belong to it. Nothing is
deleted before what replaces it was read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.errors import TrainError
from train.loop.checkpoint import (
    CheckpointError,
    Tensors,
    load_checkpoint,
    read_description,
    save_checkpoint,
    verify_checkpoint,
)
from train.loop.layout import BEST
from train.loop.metrics_log import Position, check_log
from train.loop.selection import Score
from vqa_cache.system.durable import remove_whole, sync_folder


@dataclass(frozen=True)
class State:
    """Where a training stands: all that neither config nor step number determine.

    Attributes:
        step: steps done.
        score: the last evaluation.
        best: the best one.
        log: where metrics.jsonl stood.
    """

    step: int
    score: Score | None
    best: Score | None
    log: Position

    def as_json(self) -> dict[str, Any]:
        """Its JSON form; no clock in it."""
        return {
            "step": self.step,
            "score": self.score.as_json() if self.score else None,
            "best": self.best.as_json() if self.best else None,
            "log": self.log,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> State:
        """The inverse of `as_json`."""
        score, best = Score.from_json(found["score"]), Score.from_json(found["best"])
        return cls(found["step"], score, best, found["log"])


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was read: tensors by name, and the state."""

    path: Path
    state: State
    model: Tensors
    training: Tensors


class Snapshots:
    """The checkpoints of one training."""

    def __init__(
        self, folder: Path, *, scheduled: frozenset[int], keep_last: int, keep_best: int
    ) -> None:
        """
        Args:
            folder: `checkpoints/` of the training.
            scheduled: the steps after which a snapshot is due; any other, made by a signal, goes
                when the next one has come.
        """
        self.folder = folder
        self.scheduled = scheduled
        self.keep_last = keep_last
        self.keep_best = keep_best

    def save(
        self,
        state: State,
        model: Mapping[str, torch.Tensor],
        training: Mapping[str, torch.Tensor],
        description: Mapping[str, Any],
    ) -> Path:
        """Write a snapshot, read it back, then delete the ones that it makes superfluous."""
        path = self.folder / f"step-{state.step:08d}"
        whole = {**description, "training": state.as_json()}
        save_checkpoint(path, {"model": model, "training": training}, whole)
        verify_checkpoint(path)
        self._prune(state)
        return path

    def save_best(
        self, state: State, model: Mapping[str, torch.Tensor], description: Mapping[str, Any]
    ) -> None:
        """Write the best weights so far, read them back, then delete superfluous ones."""
        assert state.best is not None
        path = self._best_path(state.best)
        save_checkpoint(path, {"model": model}, description)
        verify_checkpoint(path)
        self._prune(state)

    def load_best(self, best: Score) -> Tensors:
        """The best weights. Raises CheckpointError."""
        return load_checkpoint(self._find_best(best))[0]

    def latest(self, log: Path, warn: Callable[[str], None]) -> Snapshot | None:
        """The newest snapshot that can be gone on from; None where there never was one.

        Args:
            log: metrics.jsonl.
            warn: is told in one line of every damaged snapshot that was passed over.

        Raises:
            TrainError: there are snapshots, and all are damaged.
        """
        reasons = []
        for path in reversed(self._paths("step-")):
            try:
                snapshot = self._read(path, log)
            except CheckpointError as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                warn(f"{reason}; going on from {path.name}, the one before it")
            return snapshot
        if reasons:
            raise TrainError(
                f"none of the {len(reasons)} snapshots in {self.folder} can be used: "
                f"{'; '.join(reasons)}; --new trains the experiment again beside this run"
            )
        return None

    def finish(self, best: Score) -> None:
        """The training has ended: `best` gets its final name, what only a resume needs goes."""
        found = self._find_best(best)
        if found.name != BEST:
            found.rename(self.folder / BEST)
            sync_folder(self.folder)
        for path in self._paths(f"{BEST}-"):
            remove_whole(path)
        for path in self._paths("step-"):
            if _step_of(path) not in self.scheduled:
                remove_whole(path)
        self._remove_superfluous()  # again: a kill may have come between the last save and this

    def _read(self, path: Path, log: Path) -> Snapshot:
        model, description = load_checkpoint(path)
        training, _ = load_checkpoint(path, "training")
        state = State.from_json(description["training"])
        check_log(log, state.log)
        if state.best:
            verify_checkpoint(self._find_best(state.best))
        return Snapshot(path, state, model, training)

    def _prune(self, now: State) -> None:
        if now.step in self.scheduled:
            self._remove_superfluous()
        needed = {now.best, *(best for path in self._paths("step-") for best in _best_of(path))}
        names = {self._best_path(best) for best in needed if best}
        for path in self._paths(f"{BEST}-"):
            if path not in names:
                remove_whole(path)

    def _remove_superfluous(self) -> None:
        """Keep the newest and the best of the scheduled snapshots."""
        found = {_step_of(path): path for path in self._paths("step-")}
        due = sorted(step for step in found if step in self.scheduled)
        scores = {step: score for step in due if (score := _score_of(found[step]))}
        ranked = sorted(scores, key=lambda s: (-scores[s].accuracy, scores[s].cross_entropy, s))
        kept = {*due[-self.keep_last :], *ranked[: self.keep_best]}
        for step, path in found.items():
            if step not in kept:
                remove_whole(path)

    def _best_path(self, best: Score) -> Path:
        return self.folder / f"{BEST}-{best.step:08d}"

    def _find_best(self, best: Score) -> Path:
        path = self._best_path(best)
        return path if path.is_dir() else self.folder / BEST

    def _paths(self, prefix: str) -> list[Path]:
        return sorted(self.folder.glob(f"{prefix}" + "[0-9]" * 8))


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _score_of(path: Path) -> Score | None:
    """The evaluation of a snapshot's own weights."""
    try:
        state = State.from_json(read_description(path)["training"])
    except CheckpointError:
        return None
    return state.score if state.score and state.score.step == state.step else None


def _best_of(path: Path) -> Iterator[Score]:
    try:
        best = State.from_json(read_description(path)["training"]).best
    except CheckpointError:
        return
    if best:
        yield best
