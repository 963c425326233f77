"""A byte order mark, as some editors write it, is no part of what a user's text file holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.json_file import read_json
from data.registry import open_dataset
from precompute.experiment import read_features
from train.config.files import load_experiment
from train.inputs.vocabulary import read_vocabulary
from vqa_cache.experiments import describe, experiment_files
from vqa_cache.keys import text_key
from vqa_cache.tools.foreign import read_ids
from vqa_cache.withdrawals import chosen_keys

EXPERIMENT = experiment_files()["linear_answers"].read_text("utf-8")
LINE = json.dumps({"image": "größe.png", "question": "what?", "answer": "a"})


def first_example(path: Path) -> str:
    (example,) = open_dataset("jsonl", path.parent).examples(path.stem)
    return example.images[0]


FILES: dict[str, tuple[str, str, Callable[[Path], Any], Any]] = {
    "experiment, stage 1": (
        "x.toml",
        EXPERIMENT,
        lambda path: read_features(str(path), []).dataset,
        "easy_vqa",
    ),
    "experiment, stage 2": (
        "x.toml",
        EXPERIMENT,
        lambda path: load_experiment(str(path)).config.features.dataset,
        "easy_vqa",
    ),
    "experiment, listed": ("x.toml", EXPERIMENT, describe, EXPERIMENT[2:].partition("\n")[0]),
    "vocabulary": (
        "answers.txt",
        "größe\nno\n",
        lambda path: list(read_vocabulary(path, k=2).answers),
        ["größe", "no"],
    ),
    "ids, a line each": ("ids.txt", "größe\n2\n", lambda p: read_ids(p, None), ["größe", "2"]),
    "ids, JSON": ("ids.json", '["größe", 2]', lambda p: read_ids(p, None), ["größe", "2"]),
    "keys to withdraw": (
        "keys.txt",
        text_key("a").hex() + "\n",
        lambda path: chosen_keys("text", keys=str(path), images=(), texts=()),
        [text_key("a")],
    ),
    "JSON lines": ("train.jsonl", LINE + "\n", first_example, "größe.png"),
    "JSON": ("x.json", '{"ß": 1}', lambda path: read_json(path, "an object"), {"ß": 1}),
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "marked"])
@pytest.mark.parametrize("kind", list(FILES))
def test_a_mark_changes_nothing(tmp_path: Path, kind: str, mark: bytes) -> None:
    name, text, read, expected = FILES[kind]
    (tmp_path / name).write_bytes(mark + text.encode())
    assert read(tmp_path / name) == expected
