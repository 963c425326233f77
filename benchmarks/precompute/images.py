"""Image models over JPEGs, against a plain loop and their floor."""

from __future__ import annotations

from benchmarks.inputs.photographs import write_photographs
from benchmarks.measuring.turns import Turn, median, ratio, take_turns
from benchmarks.peers.encoder_loops import plain_image_loop
from benchmarks.peers.floor import Floor
from benchmarks.precompute.bench import Bench

KEYS = ("resnet50_vs_plain_loop", "vitb16_vs_plain_loop", "pipeline_vs_floor")


def measure_images(bench: Bench) -> None:
    """`*_vs_plain_loop` and `pipeline_vs_floor`."""
    for name in bench.sizes.images:
        if {f"{name}_vs_plain_loop", "pipeline_vs_floor"} & bench.wanted:
            measure_model(bench, name)
    if "pipeline_vs_floor" in bench.wanted:
        figures = bench.report.figures
        floors = [figures[f"{name}_vs_floor"] for name in bench.sizes.images]
        figures["pipeline_vs_floor"] = min(floors)


def measure_model(bench: Bench, name: str) -> None:
    """Stage 1 with one image model."""
    spec, count = bench.sizes.images[name]
    bench.report.begin(f"{name}: {count} JPEGs are written, the model is set up")
    root = bench.folder / f"photographs-{name}"
    files = write_photographs(root, count)
    stage = bench.stage(name, root, spec, "image")
    work: dict[str, Turn] = {name: stage.turn}
    plain = f"{name}_plain_loop"
    if f"{name}_vs_plain_loop" in bench.wanted:
        work[plain] = bench.timed(plain, lambda: plain_image_loop(spec, files))
    floor = None
    if "pipeline_vs_floor" in bench.wanted:
        floor = Floor(stage.opened.ready().encoder, stage.opened.table, files)
        work["floor"] = floor.turn
    peers = ", ".join(other for other in work if other != name)
    bench.report.begin(f"{name}: {count} JPEGs to commits against {peers}")
    speeds = take_turns(work, rounds=bench.rounds, before={name: stage.set_up})
    stage.close()
    figures = bench.report.figures
    figures |= {
        f"{name}_precision": stage.precision,
        f"{name}_per_second": median(speeds, name),
    }
    if plain in work:
        figures[f"{name}_vs_plain_loop"] = ratio(speeds, name, plain)
        figures[f"{plain}_per_second"] = median(speeds, plain)
    if floor is not None:
        figures |= {f"{name}_{key}": value for key, value in floor.told(speeds[name]).items()}
