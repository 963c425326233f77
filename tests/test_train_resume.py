"""Runs that are killed, stopped or damaged on the way end with the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_train_small_cache import (
    QUIET,
    digests,
    run_of,
    write_experiment,
)

from benchmarks.measuring.file_calls import FileCalls
from benchmarks.resume.runs import RunCampaign, RunCounts, disturb_runs
from train.config.files import load_experiment
from train.engine.step import TrainingStep
from train.errors import TrainError
from train.loop.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from train.loop.lock import locked
from train.loop.selection import Score, epochs_done, milestones
from train.trainer import train as train_run
from vqa_cache.system import bf16_gain
from vqa_cache.system.signals import Stopped

OFTEN = ("train.snapshot_every=0.4", "train.evaluate_every=0.7", "train.keep_last=3")
HEAD = 'name = "mlp"\nhidden = [16]\ndropout = 0.1\nbatch_norm = true'


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, str]:
    """Digests of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return digests(run_of(folder, cache, "baselines=on", *OFTEN, head=HEAD))


def train_until(folder: Path, cache: Path, asked: int, *overrides: str) -> Path | None:
    """Train, with a signal seen when it is asked for the so-manieth time; None when stopped."""
    path = write_experiment(folder, head=HEAD)
    experiment = load_experiment(str(path), [*OFTEN, *overrides])
    count = 0

    def stopping() -> bool:
        nonlocal count
        count += 1
        return count == asked

    try:
        return train_run(
            experiment, cache=cache, runs=folder / "runs", console=QUIET, stopping=stopping
        )
    except Stopped:
        return None


def unfinished(folder: Path, cache: Path) -> Path:
    """A run that ended just before its result; one snapshot at least is there."""
    run = train_until(folder, cache, 0)
    assert run is not None
    (run / "result.json").unlink()
    return run


# ---------------------------------------------------------------- exactness


@pytest.mark.parametrize("asked", [1, 2, 6, 13, 30, 38])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    tmp_path: Path, cache: Path, undisturbed: dict[str, str], asked: int
) -> None:
    assert train_until(tmp_path, cache, asked) is None
    run = train_until(tmp_path, cache, 0)
    assert run is not None
    assert digests(run) == undisturbed


def test_stopped_again_and_again(tmp_path: Path, cache: Path, undisturbed: dict[str, str]) -> None:
    for _ in range(8):
        assert train_until(tmp_path, cache, 4) is None
    run = train_until(tmp_path, cache, 0)
    assert run is not None
    assert digests(run) == undisturbed


def test_random_kills_and_stops_change_no_byte(tmp_path: Path, cache: Path) -> None:
    """The short form of `python -m benchmarks resume`."""
    name = str(write_experiment(tmp_path, head=HEAD))
    counts = RunCounts()
    campaign = RunCampaign(name, cache, tmp_path, OFTEN, 3)
    disturb_runs(campaign, counts, random.Random(1), kills=3, sigterms=1)
    assert counts.differing_files == []
    assert counts.kills >= 3
    assert set(counts.sigterm_exit_codes) == {143}


def forked(work: Callable[[], Any]) -> int:
    """Exit status of a fork that does the work; negative: the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_between_any_two_changes_of_files(
    tmp_path: Path, cache: Path, undisturbed: dict[str, str]
) -> None:
    """SIGKILL just before the n-th write, sync or rename, for every nineteenth n."""
    name = "train.epochs=1", "baselines=off"

    def train(folder: Path, **how: int) -> int:
        def work() -> None:
            (folder / "count").mkdir(parents=True, exist_ok=True)
            FileCalls({"watch": str(folder / "runs"), **how}, folder / "count").install()
            train_until(folder, cache, 0, *name)

        return forked(work)

    assert train(tmp_path / "whole", count=1) == 0
    [whole] = (tmp_path / "whole" / "runs").glob("tiny_mlp-*")
    operations = len((tmp_path / "whole" / "count" / "operations").read_text().splitlines())
    assert operations > 50
    for kill_at in range(3, operations, 19):
        folder = tmp_path / str(kill_at)
        assert train(folder, kill_at=kill_at) == -signal.SIGKILL
        assert train(folder) == 0
        [run] = (folder / "runs").glob("tiny_mlp-*")
        assert digests(run) == digests(whole), kill_at
        shutil.rmtree(folder)


def test_what_leaves_the_id_alone_may_change_on_the_way(
    tmp_path: Path, cache: Path, undisturbed: dict[str, str]
) -> None:
    """Other snapshots are kept, the figures are the same."""
    assert train_until(tmp_path, cache, 9) is None
    run = train_until(tmp_path, cache, 0, "train.keep_last=1", "train.snapshot_every=0")
    assert run is not None
    found = digests(run)
    same = ("metrics.jsonl", "predictions.test.json", "checkpoints/best/model.safetensors")
    assert all(found[name] == undisturbed[name] for name in same)


def test_a_run_keeps_the_precision_it_was_begun_in(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = iter([True, False, False])
    monkeypatch.setattr(bf16_gain, "pays_on_cpu", lambda *_: next(chosen))
    assert train_until(tmp_path, cache, 9, "train.precision=auto") is None
    run = train_until(tmp_path, cache, 0, "train.precision=auto")
    assert run is not None
    assert json.loads((run / "result.json").read_text())["precision"] == "bf16"
    assert json.loads((run / "identity.json").read_text())["precision"] == "bf16"
    with pytest.raises(TrainError, match=r"^train.precision = fp16 needs a CUDA device"):
        train_until(tmp_path, cache, 0, "train.precision=fp16")


def test_a_run_begun_in_what_this_machine_cannot_do_is_refused(tmp_path: Path, cache: Path) -> None:
    assert train_until(tmp_path, cache, 9) is None
    [identity] = (tmp_path / "runs").glob("*/identity.json")
    kept = json.loads(identity.read_text())
    identity.write_text(json.dumps({**kept, "precision": "fp16"}))
    expected = r"^fp16, in which the run was begun, needs a CUDA device .*, found a CPU;"
    with pytest.raises(TrainError, match=expected):
        train_until(tmp_path, cache, 0)


def test_tensorboard_shows_what_the_log_says(tmp_path: Path, cache: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert train_until(tmp_path, cache, 20) is None
    run = train_until(tmp_path, cache, 0)
    assert run is not None
    events = EventAccumulator(str(run)).Reload()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    accuracies = {row["step"]: row["accuracy"] for row in rows if row.get("part") == "val"}
    shown = {event.step: event.value for event in events.Scalars("val/accuracy")}
    assert shown == {step: pytest.approx(value) for step, value in accuracies.items()}
    tags = set(events.Tags()["scalars"])
    assert {"train/train_loss", "train/lr", "train/gradient_norm"} < tags
    assert min(event.value for event in events.Scalars("train/peak_memory_bytes")) > 1e6
    [said] = [
        HParamsPluginData.FromString(content).session_start_info.hparams
        for tag, content in events.PluginTagToContent("hparams").items()
        if tag.endswith("session_start_info")
    ]
    assert said["head.name"].string_value == "mlp"
    assert said["optimizer.lr"].number_value > 0
    reached = json.loads((run / "result.json").read_text())["metrics"]["test"]["accuracy"]
    assert events.Scalars("result/test")[0].value == pytest.approx(reached)


def test_killed_while_the_last_superfluous_snapshot_is_deleted(
    tmp_path: Path, cache: Path, undisturbed: dict[str, str]
) -> None:
    """It goes with the end of the run, whole or in part."""
    run = unfinished(tmp_path, cache)
    half = run / "checkpoints" / "step-00000024"
    assert not half.exists()
    half.mkdir()
    (half / "training.safetensors").write_bytes(b"the rest is gone")
    assert train_until(tmp_path, cache, 0) == run
    assert digests(run) == undisturbed


# ---------------------------------------------------------------- damage


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def older_format(path: Path) -> None:
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, "version": 0}))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("model.safetensors", damage, "model.safetensors is damaged, its digest is wrong"),
        ("training.safetensors", damage, "training.safetensors is damaged, its digest is wrong"),
        ("model.json", damage, r"model.json is (damaged, its digest is wrong|not valid JSON)"),
        ("training.safetensors", Path.unlink, "training.safetensors is missing"),
        ("model.json", Path.unlink, "model.json is missing"),
        ("model.json", older_format, "format version 0, this program reads 1"),
    ],
)
def test_a_damaged_snapshot_is_passed_over(
    tmp_path: Path,
    cache: Path,
    undisturbed: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    file: str,
    change: Callable[[Path], object],
    reason: str,
) -> None:
    run = unfinished(tmp_path, cache)
    newest, before = sorted((run / "checkpoints").glob("step-*"))[:-3:-1]
    change(newest / file)
    experiment = load_experiment(str(write_experiment(tmp_path, head=HEAD)), OFTEN)
    console = Console(width=200)
    train_run(experiment, cache=cache, runs=tmp_path / "runs", console=console)
    said = capsys.readouterr().out
    line = rf"checkpoint .*{newest.name}: {reason}; going on from {before.name}, the one before it"
    assert re.search(line, said), said
    assert digests(run) == undisturbed


def test_without_any_good_snapshot_there_is_one_clear_line(tmp_path: Path, cache: Path) -> None:
    run = unfinished(tmp_path, cache)
    snapshots = list((run / "checkpoints").glob("step-*"))
    for path in snapshots:
        damage(path / "model.safetensors")
    expected = rf"^none of the {len(snapshots)} snapshots in .* can be used: .*; --new trains"
    with pytest.raises(TrainError, match=expected):
        train_until(tmp_path, cache, 0)


def test_a_log_that_was_cut_or_changed_is_not_gone_on_with(tmp_path: Path, cache: Path) -> None:
    run = unfinished(tmp_path, cache)
    log = run / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-10])
    assert train_until(tmp_path, cache, 0) is not None, "the snapshot before has a shorter log"
    (run / "result.json").unlink()
    damage(log)
    log.write_bytes(b"x" + log.read_bytes()[1:])
    with pytest.raises(TrainError, match=r"metrics.jsonl is not as it was when the snapshot was"):
        train_until(tmp_path, cache, 0)


def test_missing_best_weights_make_a_snapshot_useless(tmp_path: Path, cache: Path) -> None:
    run = unfinished(tmp_path, cache)
    shutil.rmtree(run / "checkpoints" / "best")
    with pytest.raises(TrainError, match=r"checkpoint .*best: model.json is missing"):
        train_until(tmp_path, cache, 0)


def test_checkpoints_say_what_is_wrong(tmp_path: Path) -> None:
    tensors = {"model": {"a": torch.ones(2, 3)}}
    save_checkpoint(tmp_path / "best", tensors, {"epoch": 1})
    loaded, description = load_checkpoint(tmp_path / "best")
    assert torch.equal(loaded["a"], torch.ones(2, 3))
    assert description["shapes"] == {"a": [2, 3]}
    with pytest.raises(CheckpointError, match=r"training.safetensors was not saved with it"):
        load_checkpoint(tmp_path / "best", "training")
    with pytest.raises(CheckpointError, match=r"absent: model.json is missing"):
        load_checkpoint(tmp_path / "absent")


# ---------------------------------------------------------------- one process, finite numbers


def test_two_processes_do_not_train_one_run(tmp_path: Path, cache: Path) -> None:
    assert train_until(tmp_path, cache, 3) is None
    [run] = (tmp_path / "runs").glob("tiny_mlp-*")
    with locked(run):
        expected = rf"{run.name} is being trained by process {os.getpid()}; wait for it, or train"
        with pytest.raises(TrainError, match=expected):
            train_until(tmp_path, cache, 0)
    assert train_until(tmp_path, cache, 0) is not None


def after_every_step(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[TrainingStep, torch.Tensor, int], torch.Tensor],
) -> None:
    """`change(engine, loss, step)` gives the loss that the step seems to have had."""
    take = TrainingStep.__call__

    def changed(engine: TrainingStep, inputs: Any, targets: Any, step: int) -> torch.Tensor:
        return change(engine, take(engine, inputs, targets, step), step)

    monkeypatch.setattr(TrainingStep, "__call__", changed)


def test_a_loss_that_is_not_finite_names_the_last_snapshot(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_every_step(monkeypatch, lambda _, loss, step: loss if step < 20 else loss / 0)
    with pytest.raises(TrainError) as error:
        train_until(tmp_path, cache, 0)
    assert "tiny_mlp: step 21 (epoch 2): the loss is inf at learning rate 0.01" in str(error.value)
    assert "the last finite snapshot is" in str(error.value)
    assert "checkpoints/step-00000019;" in str(error.value)


def test_no_snapshot_holds_weights_that_are_not_finite(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(engine: TrainingStep, loss: torch.Tensor, step: int) -> torch.Tensor:
        if step == 6:
            next(engine.model.parameters()).data[0, 0] = torch.inf
        return loss

    after_every_step(monkeypatch, spoil)
    expected = (
        r"step 7 \(epoch 1\): the loss was finite, but the update made weights that are not, at "
        r"learning rate 0.01; the last finite snapshot is .*step-00000005;"
    )
    with pytest.raises(TrainError, match=expected):
        train_until(tmp_path, cache, 8)


# ---------------------------------------------------------------- when and what


def test_milestones_and_epochs() -> None:
    assert milestones(1, steps_per_epoch=10, total=30) == {10, 20, 30}
    assert milestones(0.25, steps_per_epoch=10, total=10) == {2, 5, 8, 10}
    assert milestones(0.01, steps_per_epoch=10, total=10) == set(range(1, 11))
    assert milestones(7, steps_per_epoch=10, total=30) == {30}
    assert milestones(0, steps_per_epoch=10, total=30) == set()
    assert [epochs_done(step, 8) for step in (0, 8, 12, 16)] == [0, 1, 1.5, 2]


def test_scores_rank_by_accuracy_then_cross_entropy_then_age() -> None:
    assert Score(2, 0.5, 1.0).beats(None)
    assert Score(2, 0.6, 9.0).beats(Score(1, 0.5, 1.0))
    assert Score(2, 0.5, 0.9).beats(Score(1, 0.5, 1.0))
    assert not Score(2, 0.5, 1.0).beats(Score(1, 0.5, 1.0))
    endless = Score(3, 0.5, float("inf"))
    assert Score.from_json(json.loads(json.dumps(endless.as_json()))) == endless


def test_a_second_signal_exits_at_once(tmp_path: Path) -> None:
    from vqa_cache.system.signals import StopSignal

    def work() -> None:
        stopping = StopSignal()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    assert forked(work) == 143
