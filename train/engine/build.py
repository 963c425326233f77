"""From the sections of an experiment to the objects that a training needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from train.components import families
from train.components.families import Family
from train.components.lookup import takes
from train.config.schema import Component, Config
from train.config.seeds import derive_seed
from train.engine.clipping import Clipping
from train.engine.model import AnswerModel
from train.engine.schedules import Schedule
from train.engine.step import TrainingStep
from train.errors import TrainError
from train.inputs.batch import InputTable, Targets
from train.inputs.load import TrainingData
from train.inputs.soft_targets import soft_targets
from train.inputs.specification import Grid, Input, Specification, Tokens, Vector, Words


def build_model(config: Config, data: TrainingData, inputs: Iterable[str]) -> AnswerModel:
    """A model over some of the inputs, on the device of the data. Raises as `make_model` does."""
    given = {name: data.tables[name].specification for name in inputs}
    answers = len(data.vocabulary)
    model = make_model(config, given, answers, data.answer_vectors, answer_types(data))
    return model.to(data.device)


def make_model(
    config: Config,
    given: Mapping[str, Specification],
    answers: int,
    answer_vectors: torch.Tensor | None = None,
    types: torch.Tensor | None = None,
) -> AnswerModel:
    """Question branch, attention, fusion and head, with weights drawn from the seed on the CPU, the
    same for every device.

    Args:
        given: name of an input -> what a batch of it is.
        answers: how many there are to choose from.
        answer_vectors: float32 [answers, width] for a head that takes them.
        types: int64 [answers], of a head that takes `answer_types`.

    Raises:
        TrainError: a bad option.
    """
    torch.manual_seed(derive_seed(config.seed, "weights"))
    branches, sizes = _branches(config, given)
    join = make(families.FUSION, config.fusion, sizes)
    kind = families.HEAD.find(config.head.name)
    asked = {"answer_vectors": answer_vectors, "answer_types": types}
    further = [value for name, value in asked.items() if takes(kind, name)]
    head = make(families.HEAD, config.head, join.out_features, answers, *further)
    model = AnswerModel(join, head, **branches)
    if bound := config.train.uniform_init:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.uniform_(-bound, bound)
    check_logits(model, given, answers, config.head.name)
    return model


def _branches(
    config: Config, given: Mapping[str, Specification]
) -> tuple[dict[str, nn.Module], dict[str, int]]:
    """Question branch and attention, as far as there are any, and the width of each vector that
    the fusion is given."""
    branches: dict[str, Any] = {}
    sizes = {name: vector_width(one) for name, one in given.items() if not isinstance(one, Words)}
    asked, states = next((Vector(sizes[name]) for name in sizes if name == "text"), None), None
    if config.question is not None and "text" in given:
        branches["question"] = branch = make(families.QUESTION, config.question, given["text"])
        sizes["text"], asked, states = branch.gives.d, branch.gives, branch.states
    images = [
        one
        for name, one in given.items()
        if name.startswith("image") and isinstance(one, Grid | Tokens)
    ]
    if config.attention is not None and images:
        positions = replace(images[0], d=sum(one.d for one in images))
        attention = make(families.ATTENTION, config.attention, positions, asked, states)
        branches["attention"] = attention
        rest = {name: width for name, width in sizes.items() if not name.startswith("image")}
        sizes = {"image": attention.gives.d, **rest}
    return branches, sizes


def vector_width(given: Vector | Grid | Tokens) -> int:
    """Numbers of the vector that an input is without a branch: a grid is flattened."""
    return given.longest * given.d if isinstance(given, Grid) else given.d


def check_logits(
    model: AnswerModel, given: Mapping[str, Specification], answers: int, head: str
) -> None:
    """Raises TrainError where the head gives other than one logit an answer: one of a user's own
    with more of them would train, and be wrong."""
    with torch.no_grad():
        shape = list(model.eval()({name: empty_input(one) for name, one in given.items()}).shape)
    model.train()
    if shape != [2, answers]:
        raise TrainError(
            f"head {head!r}: gives logits {shape} for 2 examples and {answers} answers; expected "
            f"[2, {answers}]"
        )


def empty_input(given: Specification) -> Input:
    """Two examples of zeros."""
    if isinstance(given, Vector):
        return Input(torch.zeros(2, given.d))
    if isinstance(given, Grid):
        return Input(torch.zeros(2, given.longest, given.d))
    mask = torch.ones(2, 1, dtype=torch.bool)
    if isinstance(given, Words):
        return Input(torch.zeros(2, 1, dtype=torch.int64), mask)
    boxes = torch.zeros(2, 1, 4) if given.boxes else None
    return Input(torch.zeros(2, 1, given.d), mask, None, boxes)


def build_step(
    config: Config, data: TrainingData, model: AnswerModel, *, total_steps: int
) -> TrainingStep:
    """The model's training step: loss, optimiser, schedule. Raises TrainError for a bad option."""
    return TrainingStep(
        model,
        build_loss(config, data),
        make(families.OPTIMIZER, config.optimizer, model),
        schedule=build_schedule(config, total_steps),
        seed=config.seed,
        precision=data.precision,
        clipping=build_clipping(config),
    )


def build_clipping(config: Config) -> Clipping:
    """How gradients are clipped."""
    return Clipping(norm=config.train.clip_norm, value=config.train.clip_value)


def build_loss(config: Config, data: TrainingData) -> nn.Module:
    """The loss, given the counts and types of the training part's answers where it takes them."""
    kind = families.LOSS.find(config.loss.name)
    asked = {"class_counts": class_counts, "answer_types": answer_types}
    given = [of(data) for name, of in asked.items() if takes(kind, name)]
    loss = cast(nn.Module, make(families.LOSS, config.loss, *given))
    return loss.to(data.device)


def build_schedule(config: Config, total_steps: int) -> Schedule:
    """The learning-rate schedule of a run of so many steps."""
    given = [total_steps]
    if takes(families.SCHEDULE.find(config.schedule.name), "epochs"):
        given.append(config.train.epochs)
    made = make(families.SCHEDULE, config.schedule, *given)
    return cast(Schedule, made)


def trainable(data: TrainingData) -> torch.Tensor:
    """Examples of the training part whose truth is in the vocabulary, int64 [n]."""
    truth = data.parts["train"].truth
    return ((truth >= 0) & (truth < len(data.vocabulary))).nonzero()[:, 0]


def targets_of(config: Config, data: TrainingData) -> Targets:
    """What the loss compares the training part's examples with."""
    part = data.parts["train"]
    kind = getattr(families.LOSS.find(config.loss.name), "targets", None)
    return part.truth if kind is None else soft_targets(part, data.vocabulary, kind)


def class_counts(data: TrainingData) -> torch.Tensor:
    """How often the training part has each answer of the vocabulary, int64 [answers]."""
    truth = data.parts["train"].truth[trainable(data)]
    return torch.bincount(truth, minlength=len(data.vocabulary))


def answer_types(data: TrainingData) -> torch.Tensor | None:
    """The number of each answer's type, int64 [answers]; None where none was asked for."""
    types = data.vocabulary.types
    numbers = {name: number for number, name in enumerate(sorted(set(types)))}
    return torch.tensor([numbers[name] for name in types]) if types else None


def check_batch_norm(model: nn.Module, smallest: int) -> None:
    """Raises TrainError where the smallest batch is one example and the model has no variance over
    it."""
    if smallest == 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise TrainError(
            "batch normalisation needs at least 2 examples in every batch, found a batch of 1; "
            "train on more examples, raise train.batch_size, or set head.batch_norm=false"
        )


def make(family: Family, chosen: Component, *given: Any) -> Any:
    """A component with its options. Raises TrainError for a bad one."""
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


def model_tensors(model: AnswerModel, tables: Mapping[str, InputTable]) -> dict[str, torch.Tensor]:
    """What a prediction computes with, on the CPU: weights, buffers, and each input's
    normalisation."""
    tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    for name, table in tables.items():
        for statistic, values in table.normaliser.tensors().items():
            tensors[f"normalise.{name}.{statistic}"] = values
    return tensors


def describe_model(config: Config, data: TrainingData, inputs: Iterable[str]) -> dict[str, Any]:
    """What a prediction has to know beside the tensors and the encoders."""
    tables = {name: data.tables[name] for name in inputs}
    words = {} if data.words is None else {"words": data.words.describe()}
    return {
        "features": config.features.model_dump(exclude_none=True),
        "inputs": {
            name: {"width": table.width, "normalise": table.normaliser.kind}
            for name, table in tables.items()
        },
        "temperature": config.temperature,
        "answers": list(data.vocabulary.answers),
        "answers_normalised": data.vocabulary.normalised,
        "answers_merged": dict(data.vocabulary.merged),
        "answer_types": list(data.vocabulary.types),
        **words,
    }


def load_weights(model: AnswerModel, tensors: dict[str, torch.Tensor]) -> None:
    """Copy a checkpoint's weights into a model, in place."""
    own = {name: value for name, value in tensors.items() if not name.startswith("normalise.")}
    model.load_state_dict(own)
