"""All of a report in one HTML page. Whatever comes from data is escaped by the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import vqa_cache
from train.errors import TrainError
from train.evaluation.result import what_it_fails
from train.metrics.calibration import (
    area_under_risk_coverage,
    coverage_at_error,
    expected_calibration_error,
)
from train.report import charts, figures, samples, sweeps
from train.report.figures import Heat
from train.report.judged import Judged
from train.report.looks import looks
from train.report.runs import (
    ReportedRun,
    facts,
    reasons,
    settings_table,
    splits_of,
)
from train.report.sweeps import ReportedSweep
from train.report.table import Column, Table
from train.runs.comparison import compare_accuracy
from train.runs.curves import panels_of
from vqa_cache.errors import UserError

HERE = Path(__file__).parent
ERRORS = (0.1, 0.05, 0.01)  # whose coverage is told


def write_page(
    runs: Sequence[ReportedRun], of_sweeps: Sequence[ReportedSweep], *, cache: Path, most: int
) -> str:
    """The page's text.

    Args:
        cache: where small pictures are; read only where a run was judged by it.
        most: samples of each kind, of each run.
    """
    loader = jinja2.FileSystemLoader(HERE)
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    shown = [_run(run, f"run{number}") for number, run in enumerate(runs, start=1)]
    chosen = _samples(runs, cache, most)
    return made.get_template("page.html").render(
        title=", ".join([*(run.name for run in runs), *(sweep.name for sweep in of_sweeps)]),
        style=_own("page.css"),
        script=_own("page.js"),
        runs=shown,
        together=_together(runs, cache) if len(runs) > 1 else None,
        sweeps=[_sweep(sweep, f"sweep{n}") for n, sweep in enumerate(of_sweeps, start=1)],
        samples=chosen,
    )


def _own(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- one run


@dataclass(frozen=True)
class ShownRun:
    """A run with everything that its section shows; None where its answers are not judged."""

    id: str
    run: ReportedRun
    below: Sequence[str]
    reasons: Sequence[str]
    facts: Table
    splits: Table
    settings: Table
    curves: Markup
    answers: ShownAnswers | None


@dataclass(frozen=True)
class ShownAnswers:
    """What is said of a run's answers.

    Attributes:
        open_types: by type without yes/no questions; None where there are none of either kind.
        area: under the curve of error by coverage.
        covered: error -> the share of questions that can be answered with at most that.
    """

    types_are: str
    types: Table
    open_types: Table | None
    best: Sequence[str]
    worst: Sequence[str]
    answer_types: Table
    by_answer: Table
    confusions: Table
    heat: Heat
    calibration_error: float
    area: float
    covered: Mapping[float, float]
    confidence: Markup


def _run(run: ReportedRun, name: str) -> ShownRun:
    return ShownRun(
        id=name,
        run=run,
        below=what_it_fails(run.result),
        reasons=reasons(run),
        facts=facts(run),
        splits=splits_of(run.result),
        settings=settings_table([run]),
        curves=_curves(f"{name}-curves", [run]),
        answers=None if run.judged is None else _answers(run.name, run.judged, name),
    )


def _curves(name: str, runs: Sequence[ReportedRun]) -> Markup:
    """Losses, and accuracies beside that of the question alone where it is one."""
    levels = {
        f"question only, {run.selection}": alone
        for run in runs
        if (alone := run.baseline("question_only", run.selection)) is not None
    }
    by_run = {run.name: run.curves for run in runs}
    return Markup(charts.curves(name, by_run, panels_of(by_run.values()), levels))


def _answers(run: str, judged: Judged, name: str) -> ShownAnswers:
    what, yes_no = judged.types_are, judged.yes_no
    types = figures.by_type(judged, judged.types, what)
    mixed = yes_no.any() and not yes_no.all()
    open_types = figures.by_type(judged, judged.types, what, ~yes_no) if mixed else None
    sure = judged.confidence, judged.right
    best, worst = figures.best_and_worst(open_types or types)
    return ShownAnswers(
        types_are=what,
        types=types,
        open_types=open_types,
        best=best,
        worst=worst,
        answer_types=figures.by_type(judged, judged.answer_types, "answer type"),
        by_answer=figures.by_answer(judged),
        confusions=figures.confusions(judged),
        heat=figures.heat(judged),
        calibration_error=expected_calibration_error(*sure),
        area=area_under_risk_coverage(*sure),
        covered={error: coverage_at_error(*sure, error) for error in ERRORS},
        confidence=Markup(charts.confidence(f"{name}-confidence", {run: sure})),
    )


# ---------------------------------------------------------------- several runs


def _together(runs: Sequence[ReportedRun], cache: Path) -> dict[str, Any]:
    """Runs side by side."""
    judged = {
        run.name: (run.judged.confidence, run.judged.right)
        for run in runs
        if run.judged is not None
    }
    return {
        "figures": _figures_table(runs),
        "differences": _differences(runs, cache),
        "settings": settings_table(runs),
        "curves": _curves("all-curves", runs),
        "confidence": Markup(charts.confidence("all-confidence", judged)) if judged else "",
    }


def _figures_table(runs: Sequence[ReportedRun]) -> Table:
    names = ("top5_accuracy", "vqa_accuracy_official", "f1_macro", "cross_entropy")
    columns = [
        Column("run"),
        Column("split"),
        Column("n", "count"),
        Column("accuracy", "bar"),
        *(Column(name, "share") for name in ("± se", "ceiling", "question only")),
        *(Column(name, "share") for name in ("above question only", "visual gain")),
        *(Column(name.replace("_", " "), "share") for name in names),
        Column("parameters", "count"),
        Column("epoch", "number"),
    ]
    rows = [
        [
            run.name,
            run.split,
            run.metrics["n"],
            run.metrics["accuracy"],
            run.metrics["accuracy_se"],
            run.metrics["ceiling"],
            run.baseline("question_only"),
            run.above_question_only,
            run.visual_gain,
            *(run.metrics.get(name) for name in names),
            run.result["parameters"],
            run.result["best"]["epoch"],
        ]
        for run in runs
    ]
    return Table(columns, rows)


def _differences(runs: Sequence[ReportedRun], cache: Path) -> list[str]:
    """Each run against the first, question by question, or why that cannot be told."""
    first, lines = runs[0], []
    for other in runs[1:]:
        try:
            split = first.split if first.split == other.split else None
            found = compare_accuracy([first.path], [other.path], cache, split=split)
        except (TrainError, vqa_cache.CacheError) as error:
            lines.append(f"{other.name} cannot be compared with {first.name}: {error}")
            continue
        chance = " (may be chance)" if found.low <= 0 <= found.high else ""
        lines.append(
            f"{other.name} less {first.name} on {found.split}: {found.difference:+.4f}, 95 % "
            f"interval {found.low:+.4f} to {found.high:+.4f}, n {found.n:,} questions of "
            f"{found.images:,} images{chance}"
        )
    return lines


# ---------------------------------------------------------------- samples and sweeps


def _samples(runs: Sequence[ReportedRun], cache: Path, most: int) -> dict[str, Any]:
    """What the page's script pages through: samples of each run, pictures of all."""
    judged = {f"run{n}": run.judged for n, run in enumerate(runs, start=1) if run.judged}
    if not judged:
        return {"runs": {}, "pictures": {}}
    opened = vqa_cache.open(cache)
    places = {
        name: {key: place for place, key in enumerate(one.ids)} for name, one in judged.items()
    }
    names = {f"run{n}": run.name for n, run in enumerate(runs, start=1)}
    questions = {name: one.examples.name for name, one in judged.items()}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, one in judged.items():
        found[name] = []
        others = [o for o in judged if o != name and questions[o] == questions[name]]
        chosen = samples.choose(one, opened, most)
        weights = _looks(runs[int(name.removeprefix("run")) - 1], one, chosen, cache)
        for place, look in zip(chosen, weights, strict=True):
            shown = {**samples.sample(one, place), "look": look}
            shown["others"] = [
                [names[o], *judged[o].top[places[o][shown["id"]]][0]]
                for o in others
                if shown["id"] in places[o]
            ]
            found[name].append(shown)
    keys = {one["image"] for own in found.values() for one in own}
    return {"runs": found, "pictures": dict(samples.pictures(keys, opened))}


def _looks(
    run: ReportedRun, judged: Judged, places: Sequence[int], cache: Path
) -> list[list[list[float]] | None]:
    """Where the attention looked, by sample; None where it cannot be told."""
    try:
        weights = looks(run.path, judged, places, cache)
    except UserError:  # an imported table, say
        weights = None
    if weights is None:
        return [None] * len(places)
    return [[[round(w, 3) for w in row] for row in one] for one in weights.tolist()]


def _sweep(sweep: ReportedSweep, name: str) -> dict[str, Any]:
    finished = [trial for trial in sweep.trials if trial["status"] == "finished"]
    return {
        "id": name,
        "sweep": sweep,
        "best": finished[0] if finished else None,
        "chart": Markup(charts.parallel(sweep, name)),
        "importance": {
            one: sweeps.importance_table(shares) for one, shares in sweep.importance.items()
        },
        "trials": sweeps.trials_table(sweep),
        "settings": Table(
            [Column("setting"), Column("value")],
            [(key, str(value)) for key, value in sweep.settings.items()],
        ),
    }
