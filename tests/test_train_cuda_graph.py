"""Steps as CUDA graphs. Without a GPU a stand-in repeats the captured work, so that all but the
capture itself is tested: what is read from where, what a warm-up leaves, how a training uses it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_train_small_cache import QUIET, run_of, write_experiment

from train.config.files import load_experiment
from train.config.precisions import Precision
from train.engine import cuda_graph, optimizers, schedules
from train.engine.cuda_graph import WARM_UPS, CannotCaptureError, CapturedSteps, check_against_eager
from train.engine.model import AnswerModel
from train.engine.step import EagerSteps, TrainingStep
from train.fusion.concat import Concat
from train.heads.mlp import MlpHead
from train.inputs.batch import batches_of
from train.inputs.normaliser import Normaliser
from train.inputs.resident import ItemRows, ResidentTable
from train.inputs.specification import Batch
from train.loop import training_loop
from train.losses.cross_entropy import CrossEntropy
from train.trainer import train as train_run
from vqa_cache.system.device import CPU
from vqa_cache.system.signals import Stopped

STEPS, SIZE, ROWS = 50, 8, 40


def repeat(
    work: Callable[[], None], restore: Callable[[], None], _: Iterable[torch.Generator] = ()
) -> Callable[[], None]:
    """What `cuda_graph.capture` does, where nothing can be captured."""
    for _ in range(WARM_UPS):
        work()
    restore()
    return work


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "capture", repeat)


def build(device: torch.device = CPU, precision: Precision = "fp32") -> TrainingStep:
    """With all that must not be frozen: a schedule, dropout, statistics of batches."""
    torch.manual_seed(0)
    mlp = MlpHead(6, 4, hidden=[16], dropout=0.3, dropout_input=0.1, batch_norm=True)
    model = AnswerModel(Concat({"x": 6}), mlp).to(device)
    return TrainingStep(
        model,
        CrossEntropy(),
        optimizers.AdamW(model, lr=0.02),
        schedule=schedules.cosine(STEPS, warmup_steps=5),
        seed=3,
        precision=precision,
    )


def examples_of(device: torch.device = CPU) -> tuple[Callable[[torch.Tensor], Batch], Any]:
    """Batches of a small table, and the examples of 50 steps: every fifth batch is smaller."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(ROWS, 6, generator=draw)
    table = ResidentTable(
        rows, torch.arange(ROWS).numpy(), Normaliser("none"), home=device, device=device
    )
    truth = torch.randint(4, (ROWS,), generator=draw)

    part = SimpleNamespace(items={"x": ItemRows(torch.arange(ROWS).to(table.home))})
    sizes = [SIZE if number % 5 else SIZE - 3 for number in range(STEPS)]
    batches = [torch.randperm(ROWS, generator=draw)[:size].to(device) for size in sizes]
    return batches_of(part, truth, {"x": table}), batches


def test_the_same_numbers_as_eager_steps(stand_in: None) -> None:
    batch, batches = examples_of()
    assert check_against_eager(build, batch, batches) == {"losses": 0.0, "weights": 0.0}


def test_a_difference_is_an_error(stand_in: None) -> None:
    batch, batches = examples_of()
    engines = [build(), build()]
    engines[1].seed += 1  # other dropout
    with pytest.raises(RuntimeError, match=r"after 50 steps the graph differs from the eager step"):
        check_against_eager(engines.pop, batch, batches)


def test_captures_leave_the_model_as_it_was(stand_in: None) -> None:
    batch, batches = examples_of()
    engine, untouched = build(), build()
    steps = CapturedSteps(engine, batch, {SIZE, SIZE - 3}, capacity=9)
    before, after = untouched.model.state_dict(), engine.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert engine.optimizer.state
    assert not any(value.any() for value in engine.optimizer.state.values())
    steps(batches[1], 0)
    assert len(steps.losses()) == 1


def test_a_training_that_is_under_way_is_captured_where_it_stands(stand_in: None) -> None:
    batch, batches = examples_of()
    engine, reference = build(), build()
    for step in range(7):
        engine(*batch(batches[step]), step)
    reference.model.load_state_dict(engine.model.state_dict())
    reference.load(engine.state())
    steps = CapturedSteps(engine, batch, {SIZE, SIZE - 3}, capacity=9)
    steps(batches[7], 7)
    rate = torch.tensor(reference.lr(7))
    reference.start(7)
    expected = reference.update(*batch(batches[7]), rate)
    assert steps.losses() == [expected.item()]
    for a, b in zip(engine.model.parameters(), reference.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_losses_are_read_in_order_and_their_room_is_used_again(stand_in: None) -> None:
    batch, batches = examples_of()
    captured = CapturedSteps(build(), batch, {SIZE, SIZE - 3}, capacity=4)
    eager = EagerSteps(build(), batch)
    for start in (0, 4, 8):
        for step in range(start, start + 4):
            captured(batches[step], step)
            eager(batches[step], step)
        assert captured.losses() == pytest.approx(eager.losses(), rel=1e-5)
    for step in range(12, 16):
        captured(batches[step], step)
    with pytest.raises(AssertionError):
        captured(batches[16], 16)


# ---------------------------------------------------------------- in a training


def train_run_in(folder: Path, cache: Path, asked: int = 0) -> Path | None:
    """Train in 26 batches of 7, the last one smaller; None when stopped at the asked step."""
    folder.mkdir(exist_ok=True)
    head = 'name = "mlp"\nhidden = [16]\ndropout = 0.1\nbatch_norm = true'
    path = write_experiment(folder, head=head)
    overrides = ["train.batch_size=7", "train.epochs=2", "baselines=off"]
    overrides += ["train.evaluate_every=1.7", "train.snapshot_every=0"]
    count = 0

    def stopping() -> bool:
        nonlocal count
        count += 1
        return count == asked

    experiment = load_experiment(str(path), overrides)
    try:
        return train_run(
            experiment, cache=cache, runs=folder / "runs", console=QUIET, stopping=stopping
        )
    except Stopped:
        return None


def rows_of(run: Path | None) -> list[dict[str, Any]]:
    assert run is not None
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def as_on_a_gpu(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training takes the device that it trains on for another one than the CPU."""
    monkeypatch.setattr(training_loop, "CPU", torch.device("meta"))


def test_the_log_has_the_rows_of_a_cpu(
    tmp_path: Path, cache: Path, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = rows_of(train_run_in(tmp_path / "graph", cache))
    monkeypatch.setattr(training_loop, "CPU", CPU)
    eager = rows_of(train_run_in(tmp_path / "eager", cache))
    assert [list(row) for row in captured] == [list(row) for row in eager]
    losses = [
        [row["train_loss"] for row in rows if "part" not in row] for rows in (captured, eager)
    ]
    assert losses[0] == losses[1], "both read the learning rate as a float32 number"
    assert sum("gradient_norm" in row for row in captured) == 2


def test_a_stopped_run_goes_on_to_the_same_bytes(
    tmp_path: Path, cache: Path, as_on_a_gpu: None
) -> None:
    whole = train_run_in(tmp_path / "whole", cache)
    assert train_run_in(tmp_path / "stopped", cache, asked=33) is None
    run = train_run_in(tmp_path / "stopped", cache)
    assert rows_of(run) == rows_of(whole)
    assert run is not None
    assert whole is not None
    weights = "checkpoints/best/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_run_may_go_on_without_graphs_to_the_same_bytes(
    tmp_path: Path, cache: Path, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_run_in(tmp_path / "whole", cache)
    assert train_run_in(tmp_path / "stopped", cache, asked=33) is None
    monkeypatch.setattr(training_loop, "CPU", CPU)
    run = train_run_in(tmp_path / "stopped", cache)
    assert run is not None
    assert whole is not None
    weights = "checkpoints/best/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_class_of_ones_own_is_not_captured(
    tmp_path: Path, cache: Path, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may count in Python: here its dropout-like gain depends on the number of calls."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counting.py").write_text(
        "from torch import nn\nclass Head(nn.Module):\n"
        "    def __init__(self, inputs: int, answers: int) -> None:\n"
        "        super().__init__()\n        self.calls = 0\n"
        "        self.linear = nn.Linear(inputs, answers)\n"
        "    def forward(self, x):\n        self.calls += self.training\n"
        "        return self.linear(x) * (1 + self.calls % 3)\n"
    )
    said: list[str] = []
    monkeypatch.setattr(training_loop, "say", lambda _, line: said.append(line))
    head = {"head": 'name = "counting:Head"'}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    found = rows_of(run_of(tmp_path / "a", cache, "baselines=off", **head))
    assert said == [
        "tiny_mlp: steps run kernel by kernel: Head is a class of one's own, whose Python a graph "
        "would not run"
    ]
    monkeypatch.setattr(training_loop, "CPU", CPU)
    assert found == rows_of(run_of(tmp_path / "b", cache, "baselines=off", **head))


def test_what_cuda_refuses_to_capture_is_restored_and_said() -> None:
    restored: list[bool] = []
    with (
        pytest.raises(CannotCaptureError, match=r"^operation not permitted when stream is capt"),
        cuda_graph.refused(lambda: restored.append(True)),
    ):
        raise RuntimeError("operation not permitted\n when stream is capturing")
    assert restored == [True]


def test_biases_that_a_batch_norm_subtracts_again_are_not_compared() -> None:
    engine = build()
    names = {id(p): name for name, p in engine.model.named_parameters()}
    compared = {names[id(p)] for p in cuda_graph._decided(engine.model)}
    left_out = set(names.values()) - compared
    assert left_out == {"head.layers.1.bias"}
    assert "head.output.bias" in compared


def test_a_step_that_waits_runs_eagerly_and_that_is_said(
    tmp_path: Path, cache: Path, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(
        work: Callable[[], None], restore: Callable[[], None], _: Iterable[torch.Generator] = ()
    ) -> Callable[[], None]:
        work()
        restore()
        raise CannotCaptureError("called a synchronizing CUDA operation")

    said: list[str] = []
    monkeypatch.setattr(cuda_graph, "capture", refuse)
    monkeypatch.setattr(training_loop, "say", lambda _, line: said.append(line))
    found = rows_of(train_run_in(tmp_path / "refused", cache))
    line = "tiny_mlp: steps run kernel by kernel: called a synchronizing CUDA operation"
    assert said == [line]
    monkeypatch.setattr(training_loop, "CPU", CPU)
    assert found == rows_of(train_run_in(tmp_path / "eager", cache))


# ---------------------------------------------------------------- on a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_graphs_on_a_gpu_give_the_numbers_of_eager_steps(precision: Precision) -> None:
    device = torch.device("cuda", 0)
    batch, batches = examples_of(device)
    check_against_eager(lambda: build(device, precision), batch, batches)


@needs_gpu
def test_steps_on_a_gpu_wait_for_nothing() -> None:
    device = torch.device("cuda", 0)
    batch, batches = examples_of(device)
    steps = CapturedSteps(build(device), batch, {SIZE, SIZE - 3}, capacity=STEPS)
    with cuda_graph.waiting_forbidden():
        for step, examples in enumerate(batches):
            steps(examples, step)
            steps.gradient_norm()


@needs_gpu
def test_a_step_that_waits_is_refused() -> None:
    device = torch.device("cuda", 0)
    batch, _ = examples_of(device)

    def waiting(examples: torch.Tensor) -> Batch:
        assert int(examples.max()) >= 0
        return batch(examples)

    with pytest.raises(CannotCaptureError, match="synchronizing"):
        CapturedSteps(build(device), waiting, {SIZE}, capacity=1)
