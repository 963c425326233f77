"""Answers about new images: those of the cached path, by the very encoders of the cache."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from answering_runs import COLOURS, GRID, RUNS, asked_of, predictor_of, trained
from click.testing import CliRunner
from conftest import BERT, VIT, save_bert
from test_train_small_cache import result_of

import train
import vqa_cache
from precompute.encoders.new_items import TableEncoder
from train.export import command as export_command
from train.metrics.temperature import temperature_of
from train.predict.__main__ import command
from train.predict.predictor import Predictor, TrainedRun
from vqa_cache.errors import RefusedError
from vqa_cache.keys import image_key, text_key
from vqa_cache.spec import parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

# of a row's largest value: what a batch of another size may change, with fp16's rounding
ROW_TOLERANCE = 1e-3
PROBABILITY_TOLERANCE = 1e-4  # of an answer, fp32


def typed(answering: Path, *arguments: str) -> Any:
    options = ["--runs", str(answering / "runs"), "--cache", str(answering / "cache")]
    return CliRunner().invoke(command, [*arguments, *options], catch_exceptions=False)


def error_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    monkeypatch.setattr("sys.argv", ["predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    return line


# ---------------------------------------------------------------- as the cached path


@pytest.mark.parametrize("spec", [VIT, GRID, BERT, f"{BERT}:tap=tokens"])
@pytest.mark.parametrize("at_once", [1, 5])
def test_a_row_is_the_cached_one(answering: Path, spec: str, at_once: int) -> None:
    modality: Any = "text" if spec.startswith(BERT) else "image"
    table = vqa_cache.open(answering / "cache").find_table(spec, modality)
    encoder = TableEncoder(spec, table.name, table.record.identity, table.record.computed_in)
    asked = asked_of(answering, "one")
    items = list(dict.fromkeys(a.question if modality == "text" else a.images[0] for a in asked))
    key = text_key if modality == "text" else image_key
    found = [
        row
        for first in range(0, len(items), at_once)
        for row, _ in encoder.rows(items[first : first + at_once])
    ]
    for item, row in zip(items, found, strict=True):
        cached = table[key(item)].float()
        assert row.dtype == torch.float16
        row = row.float().reshape(cached.shape)
        assert (row - cached).abs().max() <= ROW_TOLERANCE * cached.abs().max()


@pytest.mark.parametrize("dataset", ["one", "two"])
@pytest.mark.parametrize("name", RUNS)
def test_answers_are_those_that_the_run_wrote_down(
    answering: Path, dataset: str, name: str
) -> None:
    predictor = predictor_of(answering, dataset, name)
    predictor.calibration = replace(predictor.calibration, temperature=1.0)
    found = predictor.predict(asked_of(answering, dataset))
    run = trained(answering, dataset, name)
    with (run / "predictions.test.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(found) == len(written) == 21
    for one, row in zip(found, written, strict=True):
        first, second = float(row["probability_1"]), float(row["probability_2"])
        assert one.confidence == pytest.approx(first, abs=PROBABILITY_TOLERANCE)
        if first - second > 2 * PROBABILITY_TOLERANCE:
            assert one.answer == row["answer_1"]
        assert sum(share for _, share in one.answers) <= 1 + 1e-6


def test_python_answers_what_the_command_answers(answering: Path) -> None:
    run, [one, *_] = train.load(trained(answering, "one", "cosine")), asked_of(answering, "one")
    assert isinstance(run, TrainedRun)
    [found] = run.predict(one.images[0], one.question, cache=answering / "cache")
    done = typed(
        answering, str(run.path), "--image", one.images[0], "--question", one.question, "--json"
    )
    told = json.loads(done.stdout)
    [said] = told["predictions"]
    assert said["answer"] == found.answer
    assert [(top["answer"], top["probability"]) for top in said["top"]] == [
        (answer, pytest.approx(share)) for answer, share in found.answers
    ]
    assert told["seconds"]["encoders"] > told["seconds"]["head"] > 0
    both = run.predict(list(one.images * 2), one.question, cache=answering / "cache", top=2)
    assert [(len(a.answers), a.answer) for a in both] == [(2, found.answer)] * 2
    with pytest.raises(train.errors.TrainError, match="2 images and 3 questions; expected"):
        run.predict(["a", "b"], ["?", "?", "?"], cache=answering / "cache")


# ---------------------------------------------------------------- what may be asked


def test_a_folder_and_a_file_are_answered_in_one_go(answering: Path) -> None:
    run = trained(answering, "one", "words").name
    done = typed(
        answering, run, "--image", str(answering / "images"), "--question", "is it red?", "--json"
    )
    of_folder = json.loads(done.stdout)["predictions"]
    assert len(of_folder) == 16
    file = answering / "two" / "test.jsonl"
    two = trained(answering, "two", "words").name
    done = typed(answering, two, "--questions", str(file), "--json")
    of_file = json.loads(done.stdout)["predictions"]
    assert [p["question"] for p in of_file] == [a.question for a in asked_of(answering, "two")]
    assert isinstance(of_file[-1]["image"], str) or len(of_file[-1]["image"]) == 2
    text = typed(answering, two, "--questions", str(file), "--top", "1").stdout.splitlines()
    assert len(text) == 2 * len(of_file)


def test_below_the_confidence_it_does_not_know(answering: Path) -> None:
    [one, *_] = asked_of(answering, "one")
    about = [
        trained(answering, "one", "cosine").name,
        "--image",
        one.images[0],
        "--question",
        "what?",
    ]
    told = json.loads(typed(answering, *about, "--json", "--confidence", "1").stdout)["predictions"]
    assert (told[0]["answer"], len(told[0]["top"])) == (None, 5)
    assert (
        "does not know: no answer reaches 1" in typed(answering, *about, "--confidence", "1").stdout
    )
    assert "does not know" not in typed(answering, *about).stdout


def test_new_answers_are_offered_to_a_head_of_answer_vectors(
    answering: Path, tmp_path: Path
) -> None:
    """The answers of the vocabulary, offered again, are answered as before; others among them."""
    run, asked = train.load(trained(answering, "one", "cosine")), asked_of(answering, "one")[:3]
    images, questions = [a.images[0] for a in asked], [a.question for a in asked]
    before = run.predict(images, questions, cache=answering / "cache", top=7)
    predictor = Predictor.of_run(run, answering / "cache")
    own = list(predictor.model.answers)
    again = run.predict(images, questions, cache=answering / "cache", answers=own[::-1], top=7)
    for old, new in zip(before, again, strict=True):
        assert dict(new.answers) == pytest.approx(dict(old.answers), abs=1e-3)
    file = tmp_path / "answers.txt"
    file.write_text("purple\n\nred\npurple\n")
    done = typed(
        answering, str(run.path), "--image", images[0], "--question", questions[0],
        "--answers", str(file), "--json",
    )  # fmt: skip
    [said] = json.loads(done.stdout)["predictions"]
    assert {top["answer"] for top in said["top"]} == {"purple", "red"}
    assert sum(top["probability"] for top in said["top"]) == pytest.approx(1)


# ---------------------------------------------------------------- calibration


def test_the_temperature_is_that_of_the_lowest_cross_entropy() -> None:
    """Labels drawn from softmax(logits / 2) are fitted by a temperature of 2."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 6, generator=generator) * 4
    truth = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    found = temperature_of(logits, truth)
    assert found == pytest.approx(2, rel=0.05)

    def loss(t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits.double() / t, truth))

    assert all(loss(found) <= loss(t) for t in (found * 0.98, found * 1.02, 1.0))


def test_the_temperature_is_kept_with_the_run(answering: Path) -> None:
    run = trained(answering, "one", "cosine")
    first = predictor_of(answering, "one", "cosine").calibration
    kept = json.loads((run / "calibration.json").read_text())
    assert (kept["split"], kept["n"]) == ("val", first.n)
    assert 0 < first.n <= 21
    assert first.after is not None
    assert first.before is not None
    assert first.after <= first.before
    fitted = result_of(run)["calibration"]
    assert (fitted["split"], fitted["n"]) == ("val", first.n)
    assert fitted["temperature"] == pytest.approx(first.temperature, rel=1e-2), (
        "at its bound or not"
    )
    assert fitted["cross_entropy_after"] == pytest.approx(first.after, abs=1e-4)
    assert first.before == pytest.approx(
        result_of(run)["metrics"]["val"]["cross_entropy"], rel=1e-4
    )


# ---------------------------------------------------------------- refused, in one line


def test_an_encoder_whose_weights_differ_is_refused(libraries: None, tmp_path: Path) -> None:
    """The files of a folder were replaced since stage 1."""
    spec = f"dir:{save_bert(tmp_path / 'bert')}"
    from precompute.encoders import load_encoder

    identity = load_encoder(parse_spec(spec).with_default_tap("text"), "text").identity("float16")
    assert TableEncoder(spec, "text/x", identity, "fp32").identity == identity
    shutil.rmtree(tmp_path / "bert")
    save_bert(tmp_path / "bert", seed=1)
    with pytest.raises(RefusedError) as told:
        TableEncoder(spec, "text/x", identity, "fp32")
    assert str(told.value) == (
        f"encoder {spec}: is not the one whose rows table text/x holds, its weights differ; "
        "expected the same files and library versions as in stage 1 (vqa-cache info shows them)"
    )


def test_another_cache_is_found_out_before_it_answers(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """By its rows the model does not say what the run wrote down."""
    run = trained(answering, "one", "words")
    copy = tmp_path / "runs" / run.name
    shutil.copytree(run, copy)
    (copy / "calibration.json").unlink(missing_ok=True)
    path = copy / "predictions.val.json"
    rows = json.loads(path.read_text())
    other = {"red": "blue"}
    rows = [row | {"answer": other.get(row["answer"], "red")} for row in rows]
    accuracy = sum(
        row["answer"] == truth
        for row, truth in zip(
            rows, vqa_cache.open(answering / "cache").examples("one/val")["answer"], strict=True
        )
    ) / len(rows)
    path.write_text(json.dumps(rows))
    result = result_of(copy)
    result["metrics"]["val"]["accuracy"] = accuracy
    (copy / "result.json").write_text(json.dumps(result))
    line = error_of(
        monkeypatch, capsys, copy, "--image", answering / "images" / "0.png", "--question", "?",
        "--cache", answering / "cache",
    )  # fmt: skip
    assert line.startswith(f"error: {run.name}: of 21 questions of val the model answers ")
    assert "as the run wrote down; expected the cache that it was trained on (--cache)" in line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--image", "{images}/none.png", "--question", "?"],
         "error: image {images}/none.png: no such file"),
        (["--image", "{tmp}/empty", "--question", "?"],
         "error: {tmp}/empty: no image in this folder; expected .jpg, .jpeg, .png, .webp, .gif, "
         ".bmp, .tif, .tiff, .ppm, .jp2, .avif, .tga, .qoi"),
        (["--image", "{tmp}/text.png", "--question", "?"],
         "error: image {tmp}/text.png: not an image that Pillow can read"),
        (["--questions", "{tmp}/bad.jsonl"],
         'error: {tmp}/bad.jsonl:2: expected {{"image": a path or a list of paths, "question": a '
         "text}}, found '{{\"image\": 3}}'"),
        (["--image", "{images}/0.png", "--question", "?", "--answers", "{tmp}/one.txt"],
         "error: --answers {tmp}/one.txt: 1 answers; expected two at least, a line each"),
        (["--image", "{images}/0.png", "--question", "?", "--answers", "{tmp}/two.txt"],
         "error: head 'mlp' knows the answers that it was trained on alone; --answers takes a run "
         "whose head compares answers' vectors (head.name = cosine)"),
        (["--image", "{images}/0.png", "--question", "?", "--cache", "{tmp}"],
         "error: {tmp}: no cache here (no CACHE.json); name its folder, or make one with: "
         "python -m precompute --for cosine_answers --cache {tmp}"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], line: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    good = json.dumps({"image": str(answering / "images" / "0.png"), "question": "?"})
    (tmp_path / "bad.jsonl").write_text(good + '\n{"image": 3}\n')
    (tmp_path / "one.txt").write_text("red\nred\n")
    (tmp_path / "two.txt").write_text("red\nblue\n")
    named = {"images": answering / "images", "tmp": tmp_path}
    given = [one.format(**named) for one in arguments]
    cache = [] if "--cache" in given else ["--cache", answering / "cache"]
    run = trained(answering, "one", "words")
    found = error_of(monkeypatch, capsys, run, *given, *cache)
    assert found == line.format(**named)


def test_the_documentation_runs_as_it_is_typed(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text = (Path(__file__).parent.parent / "docs" / "predict.md").read_text()
    monkeypatch.chdir(tmp_path)
    shutil.copytree(
        trained(answering, "one", "cosine"), tmp_path / "runs" / "cosine_answers-0123456789ab"
    )
    (tmp_path / "cache").symlink_to(answering / "cache")
    (tmp_path / "pictures").symlink_to(answering / "images")
    shutil.copy(answering / "images" / "1.jpg", "kitchen.jpg")
    [line] = re.findall(r'`(\{"image": .*?\})`', text)
    Path("questions.jsonl").write_text(f"{line}\n")
    Path("answers.txt").write_text("brown\nteal\n")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
             for line in block.splitlines()]  # fmt: skip
    assert len(lines) == 9
    lines.remove("python -m train.demo cosine_answers --port 0")  # does not end by itself
    commands = {"train.predict": command, "train.export": export_command}
    for line in lines:
        python, flag, module, *arguments = shlex.split(line)
        assert (python, flag) == ("python", "-m")
        done = CliRunner().invoke(commands[module], arguments, catch_exceptions=False)
        assert done.exit_code == 0, f"{line}: {done.output}"
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "docs/predict.md", "exec"), {})
    assert capsys.readouterr().out.split()[0] in " ".join(COLOURS)


@pytest.mark.parametrize(
    "arguments", [[], ["--image", "x"], ["--question", "x"], ["--image", "x", "--questions", "y"]]
)
def test_what_is_asked_must_be_named(arguments: list[str]) -> None:
    done = CliRunner().invoke(command, ["run", *arguments])
    assert done.exit_code == 2
    assert "name --image and --question, or --questions" in done.stderr
