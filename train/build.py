"""From the sections of an experiment to the objects that a training needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from train import fusion, heads, losses, optimizers
from train.config import Component, Config
from train.errors import TrainError
from train.lookup import Factory, takes
from train.seeds import derive_seed
from train.step import AnswerModel, TrainingStep
from train.tables import ResidentTable
from train.training_data import TrainingData
from train.vocabulary import Vocabulary


def build_model(config: Config, data: TrainingData, modalities: Iterable[str]) -> AnswerModel:
    """Fusion and head with weights drawn from the seed. Raises TrainError for a bad option."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    sizes = {modality: data.tables[modality].width for modality in modalities}
    join = _make("fusion", fusion.lookup, config.fusion, sizes)
    arguments: list[Any] = [join.out_features, len(data.vocabulary)]
    if takes(heads.lookup(config.head.name), "answer_vectors"):
        arguments.append(data.answer_vectors)
    return AnswerModel(join, _make("head", heads.lookup, config.head, *arguments))


def build_step(config: Config, model: AnswerModel, *, total_steps: int) -> TrainingStep:
    """The model's training step: loss, optimiser, schedule. Raises TrainError for a bad option."""
    return TrainingStep(
        model,
        _make("loss", losses.lookup, config.loss),
        _make("optimizer", optimizers.lookup, config.optimizer, model),
        schedule=_make("schedule", optimizers.lookup_schedule, config.schedule, total_steps),
        seed=config.seed,
        precision=config.train.precision,
    )


def _make(section: str, lookup: Callable[[str], Factory], chosen: Component, *given: Any) -> Any:
    try:
        return lookup(chosen.name)(*given, **chosen.options)
    except ValueError as error:
        raise TrainError(f"{section} {chosen.name!r}: {error}") from None


def model_tensors(
    model: AnswerModel, tables: Mapping[str, ResidentTable]
) -> dict[str, torch.Tensor]:
    """What a prediction computes with: weights, buffers, and each input's normalisation."""
    tensors: dict[str, torch.Tensor] = dict(model.state_dict())
    for modality, table in tables.items():
        for name, statistic in table.normaliser.tensors().items():
            tensors[f"normalise.{modality}.{name}"] = statistic
    return tensors


def describe_model(
    config: Config, tables: Mapping[str, ResidentTable], vocabulary: Vocabulary
) -> dict[str, Any]:
    """What a prediction has to know beside the tensors and the encoders."""
    return {
        "features": config.features.model_dump(exclude_none=True),
        "inputs": {
            modality: {"width": table.width, "normalise": table.normaliser.kind}
            for modality, table in tables.items()
        },
        "answers": list(vocabulary.answers),
        "answers_normalised": vocabulary.normalised,
    }


def load_weights(model: AnswerModel, tensors: dict[str, torch.Tensor]) -> None:
    """Copy a checkpoint's weights into a model, in place."""
    own = {name: value for name, value in tensors.items() if not name.startswith("normalise.")}
    model.load_state_dict(own)
