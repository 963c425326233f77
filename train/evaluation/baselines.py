"""What a run has to beat: the most frequent answer, and one modality alone.

`question_only` and `image_only` train the head of `mlp_answers`, with its optimiser, on one
modality, with the run's epochs, batch size and selection. They are kept in
`<runs>/baselines/<digest>.json`, so runs over the same data, budget and seed share them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.config.files import load_experiment
from train.config.identity import code_digest
from train.config.schema import Component, Config
from train.engine.outputs import Outputs, evaluated, run_model
from train.errors import TrainError
from train.evaluation.evaluate import always
from train.inputs.load import TrainingData
from train.inputs.parts import Part
from train.inputs.tables import modality_of
from train.loop.fit import fit
from train.loop.lock import LockedError, locked
from train.loop.progress import say
from train.loop.training_loop import Watch
from train.metrics.classification import compute
from vqa_cache.keys import json_digest
from vqa_cache.system.durable import remove, remove_stale_temporaries, write_file
from vqa_cache.system.signals import Stopped

SINGLE = {"question_only": "text", "image_only": "image"}


def run_baselines(
    config: Config, data: TrainingData, *, runs: Path, watch: Watch
) -> dict[str, Any]:
    """`baselines` of a result: name -> split -> accuracy, accuracy_se, n; None with a reason where
    one does not apply."""
    names = ["majority", *SINGLE]
    why = why_none(config)
    if why is not None:
        return {**dict.fromkeys(names), "reasons": dict.fromkeys(names, why)}
    found: dict[str, Any] = {"majority": majority(data)}
    reasons = {}
    for name in SINGLE:
        try:
            found[name] = _single(name, config, data, runs=runs, watch=watch)
        except TrainError as error:  # the run itself is trained: its figures must not be lost
            found[name], reasons[name] = None, str(error)
    return {**found, "reasons": reasons}


def why_none(config: Config) -> str | None:
    """Why a run has no baselines, where it is to have none."""
    if config.train.overfit:
        return "train.overfit is set"
    return "baselines = off" if config.baselines == "off" else None


def majority(data: TrainingData) -> dict[str, dict[str, float | None]]:
    """Always the most frequent answer of the training part."""
    return by_split(data, lambda part: always(part, part.most_frequent))


def _single(
    name: str, config: Config, data: TrainingData, *, runs: Path, watch: Watch
) -> dict[str, dict[str, float | None]]:
    inputs = [one for one in data.tables if modality_of(one) == SINGLE[name]]
    if not inputs:
        raise TrainError(f"the experiment has no features.{SINGLE[name]}")
    config = single_modality(config, SINGLE[name])
    digest = json_digest(
        {
            "config": _budget(config),
            "data": [data.digests[one] for one in inputs],
            "precision": data.precision,  # "auto" is another one on another processor
            "code": code_digest(),
        }
    )
    remove_stale_temporaries(runs / "baselines")  # what a killed run was writing
    path = runs / "baselines" / f"{digest[:32]}.json"
    folder = path.with_suffix("")  # its training, until the record is there
    while (kept := _kept(path)) is None:
        if path.exists():
            say(watch.console, f"{name}: {path} is damaged: trained anew")
        try:
            with locked(folder):
                splits = _train(name, config, data, folder=folder, watch=watch)
                record = {"baseline": name, "splits": splits}
                write_file(path, (json.dumps(record, indent=1) + "\n").encode())
                remove(folder)
                return splits
        except LockedError:  # another run needs the same one
            if watch.stopping():
                raise Stopped("stopped by a signal") from None
            time.sleep(0.2)
    remove(folder)  # a kill may have come before that
    say(watch.console, f"{name}: kept from an earlier run ({path})")
    return kept


def _kept(path: Path) -> dict[str, dict[str, float | None]] | None:
    """Figures by split; None where there are none yet, or the file is damaged."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return splits if isinstance(splits, dict) else None


def _train(
    name: str, config: Config, data: TrainingData, *, folder: Path, watch: Watch
) -> dict[str, dict[str, float | None]]:
    # One modality has few distinct rows (107 questions in easy-VQA), each computed once an
    # example all the same: dropout draws for each, and batch statistics count every one.
    inputs = [one for one in data.tables if modality_of(one) == SINGLE[name]]
    fitted = fit(config, data, modalities=inputs, what=name, folder=folder, watch=watch)
    tables = {one: data.tables[one] for one in inputs}

    def outputs(part: Part) -> Outputs:
        return run_model(
            fitted.model,
            part,
            tables,
            data.precision,
            temperature=config.temperature,
            stopping=watch.stopping,
        )

    return by_split(data, outputs)


def single_modality(config: Config, modality: str) -> Config:
    """A run's config with the model and optimiser of `mlp_answers`, without its attention. The
    question is read as the run reads it."""
    mlp = load_experiment("mlp_answers").config
    return config.model_copy(
        update={
            "question": config.question if modality == "text" else None,
            "attention": None,
            "fusion": Component(name="concat"),
            "head": mlp.head,
            "loss": mlp.loss,
            "optimizer": mlp.optimizer,
            "schedule": mlp.schedule,
        }
    )


def _budget(config: Config) -> dict[str, Any]:
    """What decides a baseline beside its data: encoders count through the tables' ids."""
    features = ("features.dataset", "features.image", "features.text", "features.answer_text")
    return {key: value for key, value in config.identity().items() if key not in features}


def by_split(
    data: TrainingData, outputs: Callable[[Part], Outputs]
) -> dict[str, dict[str, float | None]]:
    """Accuracy, its error and n of every part but train."""
    splits = {}
    for name, part in data.parts.items():
        if name != "train":
            record = evaluated(part, outputs(part), len(data.vocabulary))
            values, _ = compute(record, ("accuracy", "accuracy_se"))
            splits[name] = {**values, "n": len(record.truth)}
    return splits
