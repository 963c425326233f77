"""`python -m train.export RUN DIR`: a run as a folder that answers questions without its cache.

    model.safetensors     weights, and the statistics that rows are normalised with
    answers.safetensors   vectors of the answers, where the head compares them
    model.json            config, answers, words, encoders, calibration, figures; digests of it all
    head.onnx             with --onnx: the head for programs without torch
    README.md             the model card

`python -m train.predict DIR` reads it. The encoders' own weights are not in it: they are found as
they were for stage 1, and must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from train.command_line import TrainingCommand, cache_option, runs_option

if TYPE_CHECKING:
    from train.predict.predictor import Predictor
    from train.runs.folder import Run


@click.command(cls=TrainingCommand)
@click.argument("run")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--onnx", is_flag=True, help="Also write the head, without encoders, as head.onnx.")
@cache_option
@runs_option
def command(run: str, folder: Path, onnx: bool, cache: Path, runs: Path) -> None:
    """Write RUN (its folder, its id, or the beginning of it) to DIR, which is new or empty, for
    python -m train.predict DIR on another machine."""
    from train.predict.__main__ import find_run_folder
    from train.predict.predictor import load_trained

    write_export(load_trained(find_run_folder(run, runs)), folder, cache, onnx=onnx)
    click.echo(f"export: {folder}")


def write_export(run: Run, folder: Path, cache: Path, *, onnx: bool = False) -> None:
    """Write a run's export.

    Raises:
        TrainError, CacheError: the folder holds something; the cache is not that of the run; ONNX
            is asked for and the head cannot be written so.
    """
    from train.errors import TrainError
    from train.loop.checkpoint import load_checkpoint, save_checkpoint
    from train.loop.layout import BEST, CHECKPOINTS
    from train.predict.onnx_head import check_packages, write_onnx
    from train.predict.predictor import Predictor
    from train.predict.sources import described
    from vqa_cache.system.durable import write_file

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise TrainError(f"{folder}: exists already; expected a new or empty folder")
    if onnx:
        check_packages()
    predictor = Predictor.of_run(run, cache)
    model, description = load_checkpoint(run.path / CHECKPOINTS / BEST)
    tensors = {"model": model}
    if predictor.sources.answer_vectors is not None:
        tensors["answers"] = {"vectors": predictor.sources.answer_vectors}
    kept = ("name", "step", "epoch", "features", "inputs", "temperature", "answers",
            "answers_normalised", "answer_types", "words")  # fmt: skip
    export = {
        "run": run.path.name,
        "config": run.config.values(),
        "precision": run.result["precision"],
        "sources": described(predictor.sources),
        "calibration": asdict(predictor.calibration),
        "result": run.result,
    }
    said = {key: description[key] for key in kept if key in description}
    save_checkpoint(folder, tensors, {**said, "export": export})
    write_file(folder / "README.md", model_card(run, predictor).encode())
    if onnx:
        trained = predictor.model
        temperature = trained.temperature * predictor.calibration.temperature
        write_onnx(trained, temperature, folder / "head.onnx")


def model_card(run: Run, predictor: Predictor) -> str:
    """What a person should know who is given the folder, in Markdown."""
    result = run.result
    encoders = [
        f"| {name} | `{by.spec}` | {by.identity.library}, weights `{by.identity.weights}` |"
        for name, by in predictor.sources.encoded_by.items()
    ]
    splits = [_figures(split, result) for split in result["metrics"]]
    calibration = predictor.calibration
    fitted = (
        f"temperature {calibration.temperature:.4g}, fitted on {calibration.n:,} questions of "
        f"{calibration.split}"
        if calibration.n
        else f"not calibrated: {calibration.why}"
    )
    lines = [
        f"# {run.path.name}",
        "",
        f"Answers questions about images: `{result['experiment']}` trained on "
        f"`{result['dataset']}`, {result['answers']:,} answers to choose from, "
        f"{result['parameters']:,} parameters beside the encoders.",
        "",
        "```sh",
        'python -m train.predict . --image FILE --question "TEXT"',
        "```",
        "",
        "## Figures",
        "",
        "| split | accuracy ± se | n | ceiling | majority | question only | image only |",
        "|---|---|---|---|---|---|---|",
        *splits,
        "",
        "Standard errors are clustered by image. The last three columns are what a head that does "
        "not see both inputs reaches: what lies above them comes of seeing both.",
        f"Probabilities: {fitted}.",
        "",
        "## Encoders",
        "",
        "Their weights are not in this folder. They are found by these names, and refused where "
        "weights, preprocessing or library versions differ from those of the training.",
        "",
        "| input | encoder | from |",
        "|---|---|---|",
        *encoders,
        "",
        "## Limits",
        "",
        f"It knows the kind of images and questions of `{result['dataset']}` and no other; figures "
        "say nothing about others. It always answers: `--confidence` makes it say that it does "
        "not know.",
        "",
    ]
    return "\n".join(lines)


def _figures(split: str, result: Mapping[str, Any]) -> str:
    metrics, baselines = result["metrics"][split], result["baselines"]
    beaten = [
        ((baselines.get(name) or {}).get(split) or {}).get("accuracy")
        for name in ("majority", "question_only", "image_only")
    ]
    error = metrics["accuracy_se"]
    told = "-" if metrics["accuracy"] is None else f"{metrics['accuracy']:.4f}"
    told += "" if error is None else f" ± {error:.4f}"
    shown = ["-" if value is None else f"{value:.3f}" for value in (metrics["ceiling"], *beaten)]
    return f"| {split} | {told} | {metrics['n']:,} | {' | '.join(shown)} |"


if __name__ == "__main__":
    command()
