"""K models of one shape as one model: the same code, with layers that hold all lanes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from train.config.seeds import derive_seed
from train.inputs.specification import Input
from train.lanes.each import EachLane
from train.lanes.layers import LaneBatchNorm, LaneDropout, LaneLinear, Streams
from train.layers.dropout import Dropout

WITHOUT_WEIGHTS = (nn.ReLU, nn.Tanh)
LAYERS = (nn.Linear, nn.BatchNorm1d, Dropout, *WITHOUT_WEIGHTS, nn.Sequential, nn.ModuleDict)


class LaneModel(nn.Module):
    """K models that see the same batches: inputs as one of them takes -> [lanes, batch, answers].

    Weights begin as those of the single models, which are left alone. Where every module is alike
    with lanes (see `is_alike`) their products are joined; otherwise lanes take turns.
    """

    def __init__(self, models: Sequence[nn.Module], seeds: Sequence[int]) -> None:
        """
        Args:
            models: of one shape; only options that change none may differ.
            seeds: what each lane's dropout is drawn from.

        Raises:
            ValueError: the models differ in shape or in what is not trained.
        """
        super().__init__()
        self.seeds = list(seeds)
        self.model = stack(models) if is_alike(models[0]) else in_turn(models)
        # the shape rule of train.engine.optimizers.Optimizer, before lanes add a dimension
        self.decays = [parameter.ndim >= 2 for parameter in models[0].parameters()]
        self._make_streams()

    @property
    def turns(self) -> list[slice]:
        """Lanes that compute together; the activations of the others need not be there."""
        if not isinstance(self.model, EachLane):
            return [slice(None)]
        return [slice(lane, lane + 1) for lane in range(len(self.seeds))]

    @property
    def generators(self) -> list[torch.Generator]:
        """What lanes draw from."""
        return [stream for _, stream in self._streams.members]

    def forward(self, inputs: Mapping[str, Input], lanes: slice = slice(None)) -> torch.Tensor:
        """Logits of some lanes, which are all or one of `turns`."""
        logits: torch.Tensor
        logits = (
            self.model(inputs, lanes) if isinstance(self.model, EachLane) else self.model(inputs)
        )
        return logits

    def start(self, step: int) -> None:
        """Set every lane's dropout to what its single run draws at this step (from 0)."""
        for (_, stream), seed in zip(self._streams.members, self._streams.seeds, strict=True):
            stream.manual_seed(derive_seed(seed, "step", step))

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k], in this order."""
        self.seeds = [self.seeds[lane] for lane in lanes.tolist()]
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data[lanes], None
        for module in self.modules():
            if isinstance(module, LaneBatchNorm | LaneDropout | EachLane):
                module.keep(lanes)
        self._make_streams()

    def _make_streams(self) -> None:
        dropouts = [m for m in self.modules() if isinstance(m, LaneDropout | EachLane)]
        device = next(self.parameters()).device
        self._streams = Streams(self.seeds, dropouts, device)


def is_alike(model: nn.Module) -> bool:
    """Whether every module of a model is a layer that has a form with lanes, or says
    `lanes_alike`: its forward works on [batch, width] and on [lanes, batch, width] alike. A class
    that extends one of those may compute something else, and has to say so itself."""
    return all(
        type(module) in LAYERS or vars(type(module)).get("lanes_alike", False)
        for module in model.modules()
    )


def in_turn(models: Sequence[nn.Module]) -> EachLane:
    """K models as one that takes them in turn. Raises ValueError where they differ in shape."""
    for model in models[1:]:
        if _shapes(model) != _shapes(models[0]):
            raise ValueError("lanes differ in shape: weights of one are not those of another")
    return EachLane(models)


def stack(modules: Sequence[nn.Module]) -> nn.Module:
    """K modules, which are alike with lanes, as one. Raises as LaneModel does."""
    first = modules[0]
    if any(type(module) is not type(first) for module in modules):
        names = sorted({type(module).__name__ for module in modules})
        raise ValueError(f"lanes differ in shape: {' and '.join(names)} in one place")
    if isinstance(first, nn.Sequential):
        return _stack_sequence(modules)  # type: ignore[arg-type]
    if isinstance(first, Dropout):
        return LaneDropout([module.share for module in modules])  # type: ignore[misc]
    if isinstance(first, WITHOUT_WEIGHTS):
        return first
    _check_shapes(modules)
    if isinstance(first, nn.Linear):
        return LaneLinear(modules)  # type: ignore[arg-type]
    if isinstance(first, nn.BatchNorm1d):
        return LaneBatchNorm(modules)  # type: ignore[arg-type]
    return _stack_container(modules)


def _stack_container(modules: Sequence[nn.Module]) -> nn.Module:
    lanes = copy.deepcopy(modules[0])
    for name, own in list(lanes.named_parameters(recurse=False)):
        # [lanes, 1, answers], or [lanes, 1, 1] of a scalar: beside logits [lanes, batch, answers]
        shape = (len(modules), *[1] * (2 - own.ndim), *own.shape)
        values = torch.stack([module.get_parameter(name).detach() for module in modules])
        setattr(lanes, name, nn.Parameter(values.reshape(shape)))
    for name, shared in modules[0].named_buffers(recurse=False):
        if not all(torch.equal(module.get_buffer(name), shared) for module in modules):
            raise ValueError(f"lanes differ in {name!r}, which all of them share")
    for name, _ in modules[0].named_children():
        setattr(lanes, name, stack([module.get_submodule(name) for module in modules]))
    return lanes


def _stack_sequence(modules: Sequence[nn.Sequential]) -> nn.Module:
    """Layers in a row: a dropout that only some lanes have is one with a share of 0 in others."""
    split = [_without_dropout(module) for module in modules]
    if len({len(layers) for layers, _ in split}) > 1:
        raise ValueError("lanes differ in shape: rows of layers of different length")
    stacked: list[nn.Module] = []
    for place in range(len(split[0][0]) + 1):
        shares = [shares[place] for _, shares in split]
        if any(shares):
            stacked.append(LaneDropout(shares))
        if place < len(split[0][0]):
            stacked.append(stack([layers[place] for layers, _ in split]))
    return nn.Sequential(*stacked)


def _without_dropout(sequence: nn.Sequential) -> tuple[list[nn.Module], list[float]]:
    """Layers that are no dropout, and the share before each of them and after the last."""
    layers: list[nn.Module] = []
    shares = [0.0]
    for module in sequence:
        if isinstance(module, Dropout):
            shares[-1] = module.share
        else:
            layers.append(module)
            shares.append(0.0)
    return layers, shares


def _check_shapes(modules: Sequence[nn.Module]) -> None:
    def shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
        return [(name, tuple(p.shape)) for name, p in module.named_parameters(recurse=False)]

    for module in modules[1:]:
        if shapes(module) != shapes(modules[0]):
            raise ValueError(f"lanes differ in shape: {shapes(module)} beside {shapes(modules[0])}")


def _shapes(model: nn.Module) -> list[torch.Size]:
    return [tensor.shape for tensor in (*model.parameters(), *model.buffers())]
