"""The whole training step as a CUDA graph: one launch instead of some fifty.

A graph repeats the same kernels on the same addresses. So what differs from step to step lies in
tensors of its own: the numbers of the examples, the learning rate, the place of the loss; the
optimiser counts its steps on the device. Dropout is seeded before each replay, as before each eager
step: a graph reads the generator's seed when it is replayed.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from train.engine.step import Engine
from train.inputs.specification import Batch

WARM_UPS = 3  # steps before a capture, which libraries use to set themselves up
TOLERANCE = 1e-5


class CannotCaptureError(Exception):
    """The step cannot be captured; the text is the reason."""


def check_known(engine: Engine) -> None:
    """Raises CannotCaptureError for a class from outside this package and torch. Whatever such a
    class counts or chooses in Python would stay as it was at the capture, which no comparison of a
    few steps is sure to show. One of ours that does so says it in `not_captured`."""
    loss = engine.loss.modules() if isinstance(engine.loss, nn.Module) else [engine.loss]
    for part in [*engine.model.modules(), *loss, engine.optimizer]:
        why = getattr(part, "not_captured", None)
        if why is not None:
            raise CannotCaptureError(why)
        if type(part).__module__.partition(".")[0] not in ("train", "torch"):
            raise CannotCaptureError(
                f"{type(part).__name__} is a class of one's own, whose Python a graph would not run"
            )


@dataclass(frozen=True)
class Captured:
    """The graph of one batch size: what it reads, how it is run, what it leaves."""

    examples: torch.Tensor
    replay: Callable[[], None]
    gradients: list[torch.Tensor]
    clipped_norm: torch.Tensor | None


class CapturedSteps:
    """`train.engine.step.Steps` as CUDA graphs, one for each batch size.

    Model, optimiser and batches must be on the device, and their tensors stay where they are.
    """

    def __init__(
        self,
        engine: Engine,
        batch: Callable[[torch.Tensor], Batch],
        sizes: Iterable[int],
        *,
        capacity: int,
    ) -> None:
        """Captures a graph for each of the sizes; the model is left as it was.

        Args:
            batch: from examples, int64 [size] on the device, to inputs and targets.
            capacity: how many steps there are at most between two calls of `losses`.

        Raises:
            CannotCaptureError: a part of the step waits for the device, cannot be captured, or is
                a user's own.
        """
        check_known(engine)
        self.engine = engine
        self.batch = batch
        self._lr = torch.zeros((), dtype=engine.rates, device=engine.device)
        room = max(capacity, WARM_UPS), *engine.loss_shape
        self._losses = torch.zeros(room, device=engine.device)
        self._place = torch.zeros(1, dtype=torch.int64, device=engine.device)
        self._taken = 0
        self._graphs = {size: self._capture(size) for size in sorted(sizes)}
        self._last = next(iter(self._graphs.values()))

    def __call__(self, examples: torch.Tensor, step: int) -> None:
        assert self._taken < len(self._losses)  # beyond its end the device would stop the process
        graph = self._graphs[len(examples)]
        graph.examples.copy_(examples, non_blocking=True)
        self._lr.fill_(self.engine.lr(step))
        self.engine.start(step)
        graph.replay()
        self._last = graph
        self._taken += 1

    def gradient_norm(self) -> torch.Tensor:
        before = self._last.clipped_norm
        return torch.nn.utils.get_total_norm(self._last.gradients) if before is None else before

    def losses(self) -> list[Any]:
        values: list[Any] = self._losses[: self._taken].tolist()
        self._taken = 0
        self._place.zero_()
        return values

    def _capture(self, size: int) -> Captured:
        examples = torch.zeros(size, dtype=torch.int64, device=self.engine.device)

        def step() -> None:
            loss = self.engine.update(*self.batch(examples), self._lr)
            self._losses.index_copy_(0, self._place, loss.float()[None])
            self._place.add_(1)

        before = {name: tensor.clone() for name, tensor in self._changing().items()}

        def restore() -> None:
            for name, tensor in self._changing().items():
                if name in before:
                    tensor.copy_(before[name])
                else:
                    tensor.zero_()  # an optimiser's state, made by the first warm-up
            self.engine.optimizer.clear_gradients()

        replay = capture(step, restore, self.engine.generators)
        return Captured(examples, replay, self.engine.gradients(), self.engine.clipped_norm)

    def _changing(self) -> dict[str, torch.Tensor]:
        """All that a step changes."""
        model = {f"model.{name}": t for name, t in self.engine.model.state_dict().items()}
        return {**model, **self.engine.state(), "place": self._place}


def capture(
    work: Callable[[], None],
    restore: Callable[[], None],
    generators: Iterable[torch.Generator] = (),
) -> Callable[[], None]:
    """A function that does the same work on the same memory in one launch.

    Args:
        restore: undoes what the warm-up did.
        generators: what the work draws from beside the global random state.

    Raises:
        CannotCaptureError: the work waits for the device, or does what a graph cannot hold.
    """
    gc.collect()  # a graph that the collector deletes during a capture would end it
    current = torch.cuda.current_stream()
    stream = torch.cuda.Stream()  # one for both: gradients are bound to the stream that made them
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        try:
            for _ in range(WARM_UPS - 1):
                work()
            with waiting_forbidden():
                work()
        finally:
            restore()
            current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:  # their seeds too are read at each replay
        graph.register_generator_state(generator)
    with refused(restore), torch.cuda.graph(graph, stream=stream):
        work()
    current.wait_stream(stream)
    return graph.replay


@contextmanager
def refused(restore: Callable[[], None]) -> Iterator[None]:
    """What CUDA refuses to capture, or has no memory for, raises CannotCaptureError; before, all is
    restored."""
    try:
        yield
    except RuntimeError as error:
        restore()
        raise CannotCaptureError(" ".join(str(error).split())) from None


@contextmanager
def waiting_forbidden() -> Iterator[None]:
    """Whatever waits for the device raises CannotCaptureError."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")  # a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        raise CannotCaptureError(" ".join(str(error).split())) from None
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_against_eager(
    build: Callable[[], Engine],
    batch: Callable[[torch.Tensor], Batch],
    batches: Sequence[torch.Tensor],
) -> dict[str, float]:
    """Train two equal models on the same batches, one through graphs and one without.

    Args:
        build: makes the step of a new model, the same each time.
        batches: examples of each step, int64 [size] on the device.

    Returns:
        The largest differences of "losses" and of "weights", as shares of the largest value.

    Raises:
        RuntimeError: a difference is above 1e-5.
    """
    eager, other = build(), build()
    captured = CapturedSteps(other, batch, {len(b) for b in batches}, capacity=len(batches))
    losses = []
    for step, examples in enumerate(batches):
        captured(examples, step)
        losses.append(eager(*batch(examples), step))
    pairs = zip(_decided(eager.model), _decided(other.model), strict=True)
    differences = {
        "losses": _difference(torch.stack(losses).cpu(), torch.tensor(captured.losses())),
        "weights": max(_difference(a.detach(), b.detach()) for a, b in pairs),
    }
    if not max(differences.values()) <= TOLERANCE:
        raise RuntimeError(
            f"after {len(batches)} steps the graph differs from the eager step: {differences}; "
            f"expected at most {TOLERANCE:g}"
        )
    return differences


def _decided(model: nn.Module) -> list[torch.Tensor]:
    """Parameters that the loss decides. A bias before a batch norm is subtracted again, so that its
    gradient is a rounding error, of which Adam makes whole steps."""
    free = [
        layer.bias
        for modules in model.modules()
        if isinstance(modules, nn.Sequential)
        for layer, after in pairwise(modules)
        if isinstance(layer, nn.Linear) and isinstance(after, nn.BatchNorm1d)
    ]
    return [p for p in model.parameters() if not any(p is bias for bias in free)]


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12))
