"""From the sections of an experiment to the objects that a training needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from train.components import families
from train.components.families import Family
from train.components.lookup import takes
from train.config.schema import Component, Config
from train.config.seeds import derive_seed
from train.engine.optimizers import Schedule
from train.engine.step import AnswerModel, TrainingStep
from train.errors import TrainError
from train.inputs.load import TrainingData
from train.inputs.resident import ResidentTable
from train.inputs.vocabulary import Vocabulary


def build_model(config: Config, data: TrainingData, modalities: Iterable[str]) -> AnswerModel:
    """Fusion and head with weights drawn from the seed, the same on every device, moved to that of
    the data. Raises TrainError for a bad option."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    sizes = {modality: data.tables[modality].width for modality in modalities}
    join = _make(families.FUSION, config.fusion, sizes)
    arguments: list[Any] = [join.out_features, len(data.vocabulary)]
    if takes(families.HEAD.find(config.head.name), "answer_vectors"):
        arguments.append(data.answer_vectors)
    model = AnswerModel(join, _make(families.HEAD, config.head, *arguments))
    check_logits(model, sizes, len(data.vocabulary), config.head.name)
    return model.to(data.device)


def check_logits(model: AnswerModel, sizes: Mapping[str, int], answers: int, head: str) -> None:
    """Raises TrainError where the head gives other than one logit an answer: one of a user's own
    with more of them would train, and be wrong."""
    inputs = {modality: torch.zeros(2, width) for modality, width in sizes.items()}
    with torch.no_grad():
        shape = list(model.eval()(inputs).shape)
    model.train()
    if shape != [2, answers]:
        raise TrainError(
            f"head {head!r}: gives logits {shape} for 2 examples and {answers} answers; expected "
            f"[2, {answers}]"
        )


def build_step(
    config: Config, data: TrainingData, model: AnswerModel, *, total_steps: int
) -> TrainingStep:
    """The model's training step: loss, optimiser, schedule. Raises TrainError for a bad option."""
    return TrainingStep(
        model,
        build_loss(config, data),
        _make(families.OPTIMIZER, config.optimizer, model),
        schedule=build_schedule(config, total_steps),
        seed=config.seed,
        precision=data.precision,
    )


def build_loss(config: Config, data: TrainingData) -> nn.Module:
    """The loss, given the counts of the training part's answers where it takes them."""
    given: list[Any] = []
    if takes(families.LOSS.find(config.loss.name), "class_counts"):
        given.append(class_counts(data))
    loss = cast(nn.Module, _make(families.LOSS, config.loss, *given))
    return loss.to(data.device)


def build_schedule(config: Config, total_steps: int) -> Schedule:
    """The learning-rate schedule of a run of so many steps."""
    made = _make(families.SCHEDULE, config.schedule, total_steps)
    return cast(Schedule, made)


def trainable(data: TrainingData) -> torch.Tensor:
    """Examples of the training part whose truth is in the vocabulary, int64 [n]."""
    truth = data.parts["train"].truth
    return ((truth >= 0) & (truth < len(data.vocabulary))).nonzero()[:, 0]


def class_counts(data: TrainingData) -> torch.Tensor:
    """How often the training part has each answer of the vocabulary, int64 [answers]."""
    truth = data.parts["train"].truth[trainable(data)]
    return torch.bincount(truth, minlength=len(data.vocabulary))


def check_batch_norm(model: nn.Module, bounds: list[tuple[int, int]]) -> None:
    """Raises TrainError for a batch of one example and a model that has no variance over it."""
    smallest = min(last - first for first, last in bounds)
    if smallest == 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise TrainError(
            "batch normalisation needs at least 2 examples in every batch, found a batch of 1; "
            "train on more examples, raise train.batch_size, or set head.batch_norm=false"
        )


def _make(family: Family, chosen: Component, *given: Any) -> Any:
    factory, section = family.find(chosen.name), family.kind
    try:
        inspect.signature(factory).bind(*given, **chosen.options)
    except TypeError as error:
        raise TrainError(
            f"{section} {chosen.name!r}: {error}; it is given {len(given)} arguments, "
            f"{family.room} says which"
        ) from None
    try:
        return factory(*given, **chosen.options)
    except ValueError as error:
        raise TrainError(f"{section} {chosen.name!r}: {error}") from None


def model_tensors(
    model: AnswerModel, tables: Mapping[str, ResidentTable]
) -> dict[str, torch.Tensor]:
    """What a prediction computes with, on the CPU: weights, buffers, and each input's
    normalisation."""
    tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
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
        "temperature": config.temperature,
        "answers": list(vocabulary.answers),
        "answers_normalised": vocabulary.normalised,
    }


def load_weights(model: AnswerModel, tensors: dict[str, torch.Tensor]) -> None:
    """Copy a checkpoint's weights into a model, in place."""
    own = {name: value for name, value in tensors.items() if not name.startswith("normalise.")}
    model.load_state_dict(own)
