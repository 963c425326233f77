"""`python -m train.predict RUN --image FILE --question TEXT`: answers about new images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from train.command_line import (
    TrainingCommand,
    answering_options,
    cache_option,
    json_option,
    runs_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from train.predict.asked import Asked
    from train.predict.predictor import Answer, Predictor

_file = click.Path(path_type=Path)


@click.command(cls=TrainingCommand)
@click.argument("run")
@click.option(
    "--image",
    "images",
    type=_file,
    multiple=True,
    help="An image, or a folder of them; may repeat.",
)
@click.option("--question", help="What is asked about each image.")
@click.option(
    "--questions",
    type=_file,
    help='A file of {"image": PATH, "question": TEXT} a line instead; paths are beside the file.',
)
@answering_options
@click.option("--top", type=click.IntRange(min=1), default=5, help="So many answers are shown.")
@cache_option
@runs_option
@json_option
def command(
    run: str,
    images: tuple[Path, ...],
    question: str | None,
    questions: Path | None,
    answers: Path | None,
    confidence: float,
    top: int,
    cache: Path,
    runs: Path,
    as_json: bool,
) -> None:
    """Answer questions about new images by RUN (its folder, its id, or the beginning of it), and
    the encoders of the cache that it was trained on; or by an export's folder, without a cache.

    Probabilities are calibrated on the split that selected the run's epoch.
    """
    from rich.console import Console

    from train.predict.asked import about, check_files, read, read_answers

    if (questions is None) == (question is None) or (question is None) != (not images):
        raise click.UsageError("name --image and --question, or --questions")
    asked = read(questions) if questions is not None else about(images, question or "")
    check_files(asked)
    offered = None if answers is None else read_answers(answers)
    predictor = find(run, runs=runs, cache=cache)
    console = Console(stderr=True)
    if offered is not None:
        predictor.offer(offered)
    found = predict(predictor, asked, top, console)
    if as_json:
        click.echo(json.dumps(described(predictor, found, confidence), ensure_ascii=False))
        return
    for one in found:
        print_answer(one, confidence)
    seconds = ", ".join(f"{name} {spent:.2f} s" for name, spent in predictor.seconds.items())
    click.echo(f"{len(found):,} answered; {seconds}, loading included", err=True)


def find(run: str, *, runs: Path, cache: Path) -> Predictor:
    """The predictor of a run, or of an export's folder. Raises TrainError."""
    from train.loop.layout import DESCRIPTION
    from train.predict.predictor import Predictor, load_trained

    if (Path(run) / DESCRIPTION).is_file():
        return Predictor.of_export(Path(run))
    return Predictor.of_run(load_trained(find_run_folder(run, runs)), cache)


def find_run_folder(run: str, runs: Path) -> Path:
    """The folder of a run that a folder, an id or its beginning means. Raises TrainError."""
    from train.loop.layout import CONFIG
    from train.runs.registry import open_registry
    from train.runs.select import find_run

    path = Path(run)
    return path if (path / CONFIG).is_file() else runs / find_run(open_registry(runs), run)


def predict(
    predictor: Predictor, asked: Sequence[Asked], top: int, console: Console
) -> list[Answer]:
    """Answers, with a bar on stderr where there are several."""
    from vqa_cache.system.printing import progress_bar

    if len(asked) == 1:
        return predictor.predict(asked, top=top)
    with progress_bar(console, transient=True) as progress:
        task = progress.add_task("questions", total=len(asked))
        return predictor.predict(asked, top=top, advance=lambda n: progress.advance(task, n))


def print_answer(one: Answer, confidence: float) -> None:
    """A question with its most probable answers, for a person."""
    click.echo(f"{', '.join(one.asked.images)}: {one.asked.question}")
    if one.confidence < confidence:
        click.echo(f"  does not know: no answer reaches {confidence:g}; the nearest ones are")
    for answer, probability in one.answers:
        click.echo(f"  {probability:.3f}  {answer}")


def described(predictor: Predictor, found: Sequence[Answer], confidence: float) -> dict[str, Any]:
    """What `--json` prints."""
    calibration = predictor.calibration
    return {
        "temperature": calibration.temperature,
        "calibrated_on": {
            "split": calibration.split,
            "n": calibration.n,
            "reason": calibration.why,
        },
        "seconds": predictor.seconds,
        "predictions": [
            {
                "image": list(one.asked.images)
                if len(one.asked.images) > 1
                else one.asked.images[0],
                "question": one.asked.question,
                "answer": one.answer if one.confidence >= confidence else None,
                "confidence": one.confidence,
                "top": [{"answer": text, "probability": share} for text, share in one.answers],
            }
            for one in found
        ],
    }


if __name__ == "__main__":
    command()
