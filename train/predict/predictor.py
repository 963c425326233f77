"""Images and questions in, answers with probabilities out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from train.config.schema import Config
from train.errors import TrainError
from train.inputs.resident import ItemRows
from train.inputs.tables import modality_of
from train.inputs.vocabulary import Vocabulary
from train.loop.checkpoint import load_checkpoint, read_description
from train.loop.layout import BEST, CHECKPOINTS
from train.metrics.classification import TOP
from train.predict.asked import Asked
from train.predict.calibration import Calibration, calibrated, words_of
from train.predict.encoding import Encoders
from train.predict.model import Rows, TrainedModel
from train.predict.sources import Sources, from_cache, from_description
from train.runs.folder import Run, load_run, read_identity

AT_ONCE = 256  # questions whose rows are in memory together


@dataclass(frozen=True)
class Answer:
    """What a model answers.

    Attributes:
        answers: the most probable ones with their probabilities, falling.
    """

    asked: Asked
    answers: Sequence[tuple[str, float]]

    @property
    def answer(self) -> str:
        """The most probable one."""
        return self.answers[0][0]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return self.answers[0][1]


class Predictor:
    """A trained model with the encoders of its inputs.

    Attributes:
        calibration: what its logits are divided by.
        sources: its encoders, and its answers' vectors.
        seconds: "encoders" and "head", how long they have worked so far; loading counts.
    """

    def __init__(self, model: TrainedModel, sources: Sources, calibration: Calibration) -> None:
        self.model = model
        self.sources = sources
        self.calibration = calibration
        self.seconds = {"encoders": 0.0, "head": 0.0}
        self._encoders = Encoders(sources.encoded_by)

    @classmethod
    def of_export(cls, folder: Path) -> Predictor:
        """Of what `python -m train.export` wrote. Raises TrainError where it is damaged, or no
        export."""
        description = read_description(folder)
        if "export" not in description:
            raise TrainError(f"{folder}: is a checkpoint, no export; name the run's own folder")
        export = description["export"]
        config = Config.model_validate(export["config"])
        vectors = None
        if "answers.safetensors" in description["files"]:
            vectors = load_checkpoint(folder, "answers")[0]["vectors"]
        sources = from_description(export["sources"], vectors)
        model = TrainedModel(config, folder, sources, export["precision"])
        return cls(model, sources, Calibration(**export["calibration"]))

    @classmethod
    def of_run(cls, run: Run, cache: Path) -> Predictor:
        """Of a finished run and the cache that it was trained on.

        Raises:
            TrainError, CacheError: the cache is another one, or lacks a table; the checkpoint is
                damaged.
        """
        checkpoint = run.path / CHECKPOINTS / BEST
        sources = from_cache(run.config, read_description(checkpoint), cache)
        kept = (read_identity(run.path) or {}).get("precision") or run.result["precision"]
        model = TrainedModel(run.config, checkpoint, sources, kept)
        return cls(model, sources, calibrated(run, cache, model))

    def offer(self, answers: Sequence[str]) -> None:
        """Choose among these answers from now on. Raises TrainError where the head cannot."""
        form = Vocabulary((), self.model.normalised).form
        texts = list(dict.fromkeys(map(form, answers)))
        self.model.check_offers()
        vectors = [rows.float().flatten() for rows, _ in self._encoders.rows("answer", texts)]
        self.model.offer(texts, torch.stack(vectors))

    def predict(
        self,
        asked: Sequence[Asked],
        *,
        top: int = TOP,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Answer]:
        """An answer for each question.

        Args:
            top: so many of the most probable answers, fewer where there are no more.
            advance: called with the number of questions answered since the last time.

        Raises:
            UserError: an image cannot be read, or an encoder is not that of the cache's table.
        """
        answers: list[Answer] = []
        for first in range(0, len(asked), AT_ONCE):
            some = asked[first : first + AT_ONCE]
            began = time.perf_counter()
            rows = self._rows(some)
            encoded = time.perf_counter()
            answers += self._answers(some, self.model.logits(rows), top)
            self.seconds["encoders"] += encoded - began
            self.seconds["head"] += time.perf_counter() - encoded
            advance(len(some))
        return answers

    def _answers(self, asked: Sequence[Asked], logits: torch.Tensor, top: int) -> list[Answer]:
        shares = (logits / self.calibration.temperature).softmax(dim=1)
        best = shares.topk(min(top, shares.shape[1]))
        return [
            Answer(one, [(self.model.answers[c], p) for c, p in zip(classes, values, strict=True)])
            for one, classes, values in zip(
                asked, best.indices.tolist(), best.values.tolist(), strict=True
            )
        ]

    def _rows(self, asked: Sequence[Asked]) -> dict[str, Rows]:
        """Rows of the distinct images and questions."""
        rows: dict[str, Rows] = {}
        for name in self.model.specifications:
            images = modality_of(name) == "image"
            lists = [one.images if images else (one.question,) for one in asked]
            used = {
                item: n for n, item in enumerate(dict.fromkeys(i for own in lists for i in own))
            }
            place = torch.tensor([used[item] for own in lists for item in own])
            offsets = None
            if any(len(own) != 1 for own in lists):
                lengths = torch.tensor([0, *map(len, lists)])
                offsets = lengths.cumsum(0)
            if name == "text" and self.model.words is not None:
                rows[name] = words_of(list(used), place, self.model)
                continue
            values, lengths_of = zip(*self._encoders.rows(name, list(used)), strict=True)
            rows[name] = Rows(torch.cat(values), lengths_of, ItemRows(place, offsets))
        return rows


@dataclass(frozen=True)
class TrainedRun(Run):
    """A finished run that answers questions."""

    def predict(
        self,
        images: str | Path | Sequence[str | Path],
        questions: str | Sequence[str],
        *,
        cache: str | Path = "cache",
        answers: Sequence[str] | None = None,
        top: int = TOP,
    ) -> list[Answer]:
        """Answers to questions about images, by the encoders of the cache's tables.

        Args:
            images, questions: one a question; a single one goes with each of the others.
            cache: the one that the run was trained on.
            answers: choose among these, where the head compares answers' vectors.

        Raises:
            TrainError: so many images and questions do not go together, or as `Predictor` does.
        """
        files = [images] if isinstance(images, str | Path) else list(images)
        texts = [questions] if isinstance(questions, str) else list(questions)
        if len(files) != len(texts) and 1 not in (len(files), len(texts)):
            raise TrainError(
                f"{len(files)} images and {len(texts)} questions; expected as many of both, or one"
            )
        n = max(len(files), len(texts))
        pairs = zip(files * (n // len(files)), texts * (n // len(texts)), strict=True)
        predictor = self._predictor(Path(cache))
        if answers is not None:
            predictor = Predictor.of_run(self, Path(cache))
            predictor.offer(answers)
        return predictor.predict([Asked((str(file),), text) for file, text in pairs], top=top)

    def _repr_html_(self) -> str:
        from train.report.face import run_html

        return run_html(self.path, self.result)

    def _predictor(self, cache: Path) -> Predictor:
        kept = self._predictors
        if cache not in kept:
            kept[cache] = Predictor.of_run(self, cache)
        return kept[cache]

    @cached_property
    def _predictors(self) -> dict[Path, Predictor]:
        return {}


def load_trained(path: Path) -> TrainedRun:
    """Read a finished run. Raises TrainError where there is none."""
    run = load_run(path)
    return TrainedRun(run.path, run.config, run.result)
