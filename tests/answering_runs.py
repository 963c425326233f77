"""A small cache that stage 1 really made, and runs of several kinds on it, for tests of answering
new questions."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import BERT, RESNET, VIT, write_images
from test_train_small_cache import QUIET

import train
from precompute.pipeline import Request, precompute
from precompute.tables import EncoderSettings
from train.config.files import load_experiment
from train.predict.asked import Asked
from train.predict.predictor import Predictor
from train.trainer import train as train_run

GRID = f"{RESNET}:tap=conv1:grid=2"
COLOURS = ("red", "green", "blue", "dark red", "light green", "yellow", "grey")
RUNS = {
    "cosine": [f"features.image={VIT}", f"features.text={BERT}", f"features.answer_text={BERT}",
               "features.normalise=pca", "features.keep=0.9", "head.name=cosine",
               "head.hidden=[16]"],
    "words": [f"features.image={VIT}", "question.name=word_lstm", "question.hidden=16",
              "head.name=mlp", "head.hidden=[16]"],
    "attention": [f"features.image={GRID}", f"features.text={BERT}:tap=tokens",
                  "question.name=token_lstm", "question.hidden=16", "attention.name=stacked",
                  "attention.hidden=16", "head.name=mlp", "head.hidden=[16]",
                  "features.normalise=pca", "features.width=6"],
    "zscore": [f'features.image=["{VIT}", "{GRID}"]', f"features.text={BERT}",
               "features.normalise=zscore", "head.name=linear"],
}  # fmt: skip


def build(folder: Path) -> None:
    """Two data sets of the same pictures, "one" with an image a question and "two" with two at
    times, a cache of both, and a run of each of RUNS on each."""
    names = write_images(folder / "images", 16)
    for dataset, several in (("one", 1), ("two", 2)):
        (folder / dataset).mkdir()
        (folder / dataset / "images").symlink_to(folder / "images")
        for split, first, last in (("train", 0, 10), ("val", 10, 13), ("test", 13, 16)):
            lines = []
            for n in range(first, last):
                for colour in COLOURS:
                    count = 1 + n % several
                    images = [f"images/{names[(n + k) % 16]}" for k in range(count)]
                    entry = {"image": images if count > 1 else images[0],
                             "question": f"is number {n % 5} {colour}?",
                             "answer": COLOURS[(n + len(colour)) % len(COLOURS)]}  # fmt: skip
                    lines.append(json.dumps(entry))
            (folder / dataset / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        precompute(
            Request(
                "jsonl", str(folder / dataset), str(folder / "cache"), name=dataset,
                image=(VIT, GRID), text=(BERT, f"{BERT}:tap=tokens"), answer_text=(BERT,),
                settings=EncoderSettings(precision="fp32"),
            ),
            Quiet(),
        )  # fmt: skip
        for name in RUNS:
            trained(folder, dataset, name)


class Quiet:
    """A reporter that says nothing."""

    def say(self, line: str) -> None: ...
    def begin(self, table: str, total: int, done: int) -> None: ...
    def advance(self, items: int) -> None: ...
    def end(self) -> None: ...


def trained(folder: Path, dataset: str, name: str) -> Path:
    """The run of that name, trained if it is new."""
    file = folder / f"{name}_{dataset}.toml"
    file.write_text(
        '[head]\nname = "mlp"\n[optimizer]\nname = "adamw"\nlr = 1e-2\n'
        '[train]\nepochs = 2\nbatch_size = 16\nprecision = "fp32"\n'
    )
    keys = [f"features.dataset={dataset}", "baselines=off", *RUNS[name]]
    experiment = load_experiment(str(file), keys)
    return train_run(experiment, cache=folder / "cache", runs=folder / "runs", console=QUIET)


def asked_of(folder: Path, dataset: str, split: str = "test") -> list[Asked]:
    lines = (folder / dataset / f"{split}.jsonl").read_text().splitlines()
    found = []
    for row in map(json.loads, lines):
        images = [row["image"]] if isinstance(row["image"], str) else row["image"]
        found.append(Asked(tuple(str(folder / dataset / i) for i in images), row["question"]))
    return found


def predictor_of(folder: Path, dataset: str, name: str) -> Predictor:
    run = train.load(trained(folder, dataset, name))
    return Predictor.of_run(run, folder / "cache")
