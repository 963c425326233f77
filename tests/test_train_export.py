"""A run as a folder: the same answers without the cache, and a card that tells what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from answering_runs import RUNS, asked_of, predictor_of, trained
from click.testing import CliRunner
from test_train_small_cache import result_of
from torch import nn

from train.errors import TrainError
from train.export import command, write_export
from train.loop.checkpoint import read_description
from train.predict.__main__ import command as predict
from train.predict.onnx_head import TOLERANCE, HeadOverRows, random_rows, write_onnx
from train.predict.predictor import Predictor, load_trained

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.mark.parametrize("name", RUNS)
def test_an_export_answers_without_cache_and_runs(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = load_trained(trained(answering, "two", name))
    write_export(run, tmp_path / "export", answering / "cache")
    expected = predictor_of(answering, "two", name).predict(asked_of(answering, "two"))
    monkeypatch.chdir(tmp_path)
    found = Predictor.of_export(Path("export")).predict(asked_of(answering, "two"))
    assert found == expected
    if name == "cosine":
        offered = Predictor.of_export(Path("export"))
        offered.offer(["purple", "red"])
        assert {answer for answer, _ in offered.predict(asked_of(answering, "two"))[0].answers} == {
            "purple",
            "red",
        }


def test_the_command_says_where_it_is_and_predict_reads_it(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(answering, "one", "words")
    options = ["--runs", str(answering / "runs"), "--cache", str(answering / "cache")]
    done = CliRunner().invoke(command, [run.name, str(tmp_path / "out"), *options])
    assert done.stdout == f"export: {tmp_path / 'out'}\n"
    kept = read_description(run / "checkpoints" / "best").keys() - {"files", "answers_merged"}
    assert kept <= read_description(tmp_path / "out").keys(), "what the model is rebuilt from"
    monkeypatch.chdir(tmp_path)
    [one, *_] = asked_of(answering, "one")
    about = ["--image", one.images[0], "--question", one.question, "--json"]
    done = CliRunner().invoke(predict, [run.name, *about, *options], catch_exceptions=False)
    by_run = json.loads(done.stdout)["predictions"]
    done = CliRunner().invoke(predict, ["out", *about], catch_exceptions=False)
    assert json.loads(done.stdout)["predictions"] == by_run


def test_the_card_has_figures_controls_and_encoders(answering: Path, tmp_path: Path) -> None:
    run = trained(answering, "one", "cosine")
    write_export(load_trained(run), tmp_path / "out", answering / "cache")
    card = (tmp_path / "out" / "README.md").read_text()
    metrics = result_of(run)["metrics"]["test"]
    assert f"| test | {metrics['accuracy']:.4f} ± {metrics['accuracy_se']:.4f} | 21 |" in card
    assert "fitted on 21 questions of val" in card
    for spec in RUNS["cosine"][:2]:
        assert f"`{spec.partition('=')[2]}`" in card


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("full", "error: {tmp}/full: exists already; expected a new or empty folder"),
        ("damaged", "error: checkpoint {tmp}/damaged: answers.safetensors is damaged, its digest "
                    "is wrong"),
        ("checkpoint", "error: {tmp}/checkpoint: is a checkpoint, no export; name the run's own "
                       "folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], what: str, line: str,
) -> None:  # fmt: skip
    run, target = trained(answering, "one", "cosine"), tmp_path / what
    ask = ["--image", str(answering / "images" / "0.png"), "--question", "?"]
    if what == "full":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
        arguments, used = [str(run), str(target), "--cache", str(answering / "cache")], command
    elif what == "damaged":
        write_export(load_trained(run), target, answering / "cache")
        (target / "answers.safetensors").write_bytes(b"")
        arguments, used = [str(target), *ask], predict
    else:
        shutil.copytree(run / "checkpoints" / "best", target)
        arguments, used = [str(target), *ask], predict
    monkeypatch.setattr("sys.argv", ["x", *arguments])
    with pytest.raises(SystemExit) as end:
        used()
    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines() == [line.format(tmp=tmp_path)]
    if what == "full":
        assert (target / "mine.txt").read_text() == "mine"


# ---------------------------------------------------------------- ONNX


def test_the_onnx_head_gives_the_same_probabilities(answering: Path, tmp_path: Path) -> None:
    """Of other rows, and of another number of them than it was written with; an LSTM over tokens,
    attention and principal directions. A cosine head is written by the documentation's command."""
    import onnxruntime

    run = load_trained(trained(answering, "one", "attention"))
    write_export(run, tmp_path / "out", answering / "cache", onnx=True)
    predictor = Predictor.of_export(tmp_path / "out")
    trained_model = predictor.model
    temperature = trained_model.temperature * predictor.calibration.temperature
    rows = random_rows(trained_model.specifications, 7)
    with torch.no_grad():
        expected = HeadOverRows(trained_model, temperature)(rows)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "head.onnx")
    [found] = session.run(["probabilities"], {key: one.numpy() for key, one in rows.items()})
    assert found.shape == (7, len(trained_model.answers))
    assert float((torch.from_numpy(found) - expected).abs().max()) <= TOLERANCE
    assert float(found.std()) > 0


class DataDependent(nn.Module):
    """A head whose way depends on its numbers."""

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        return fused if float(fused.sum()) > 0 else -fused


def test_a_head_that_onnx_has_not_is_one_line(answering: Path, tmp_path: Path) -> None:
    model = Predictor.of_run(
        load_trained(trained(answering, "one", "zscore")), answering / "cache"
    ).model
    model.model.head = DataDependent()
    told = r"^--onnx: this head cannot be written as ONNX \(.*\); the rest of the export is"
    with pytest.raises(TrainError, match=told):
        write_onnx(model, 1.0, tmp_path / "head.onnx")
    assert not (tmp_path / "head.onnx").exists()


def test_without_its_packages_the_option_names_them(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_trained(trained(answering, "one", "zscore"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainError, match=r"^--onnx needs the packages onnx, onnxruntime, onnxscript"
                                         r": pip install 'vqa-cache\[onnx\]'$"):  # fmt: skip
        write_export(run, tmp_path / "out", answering / "cache", onnx=True)
    assert not (tmp_path / "out").exists()
