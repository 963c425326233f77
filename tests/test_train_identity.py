"""What the code digest of a run or a sweep covers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_train_small_cache import build_cache, small_dataset, write_experiment

from train.components.user_code import with_imports
from train.config import identity
from train.config.identity import code_digest
from train.sweep.engine import Data
from train.sweep.request import Request
from train.sweep.run import settings_of
from train.sweep.space import parse_space


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        *((f"train/{room}", True) for room in identity.ROOMS),
        ("data/answers.py", True),
        ("train/runs/registry.py", False),
        ("train/trainer.py", False),
    ],
)
def test_every_room_that_computes_is_covered_and_no_other(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    original = code_digest()
    for folder in ("train", "data"):
        shutil.copytree(identity.TRAIN.parent / folder, here / folder)
    monkeypatch.setattr(identity, "TRAIN", here / "train")
    monkeypatch.setattr(identity, "ANSWERS", here / "data" / "answers.py")
    assert code_digest() == original, "where the package lies does not count"
    touched = here / name if name.endswith(".py") else here / name / "new.py"
    touched.parent.mkdir(exist_ok=True)
    with touched.open("a") as file:
        file.write("#")
    assert (code_digest() != original) == counts


def test_a_users_component_is_covered_with_what_it_imports(here: Path) -> None:
    (here / "mine.py").write_text("from layers import Layer\nfrom train.lanes import step")
    (here / "layers.py").write_text("import torch")
    (here / "other.py").write_text("")
    plain = code_digest()
    names = ["mine:Head", "adamw"]
    digests = [code_digest(names)]
    for name in ("mine.py", "layers.py", "other.py"):
        with (here / name).open("a") as file:
            file.write("\n#")
        digests.append(code_digest(names))
    assert len({plain, *digests[:3]}) == 4
    assert digests[3] == digests[2], "nobody imports other.py"
    assert code_digest(["mlp", "adamw"]) == plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import torch, layers", {"layers.py"}),
        ("import package.inner as it", {"package/__init__.py", "package/inner.py"}),
        ("from package import inner", {"package/__init__.py", "package/inner.py"}),
        ("from package import (\n  Name,  # no file\n)", {"package/__init__.py"}),
        ("from package.relative import it", {"package/relative.py", "package/inner.py",
                                             "package/__init__.py", "layers.py"}),
        ("def build():\n  from layers import Layer", {"layers.py"}),
        ("import mine", set()),
        ("import train.step, vqa_cache", set()),
        ("import json; from nowhere import thing", set()),
        ("'import layers'", set()),
        ("import layers\nfrom (", set()),
    ],
)  # fmt: skip
def test_what_a_file_imports(here: Path, text: str, expected: set[str]) -> None:
    for name in ("package", "train"):
        (here / name).mkdir()
    for name in ("layers", "package/__init__", "package/inner", "train/step"):
        (here / f"{name}.py").write_text("")
    (here / "package" / "relative.py").write_text("from .inner import it\nfrom .. import layers")
    (here / "mine.py").write_text(text)
    found = {str(path.relative_to(here)) for path in with_imports(here / "mine.py")}
    assert found == {"mine.py"} | expected


def test_a_sweep_covers_every_component_that_its_trials_choose_between(here: Path) -> None:
    build_cache(here / "cache", small_dataset())
    found = []
    for text in (
        "from train.engine.optimizers import Sgd",
        "from train.engine.optimizers import Adam as Sgd",
    ):
        (here / "mine.py").write_text(text)
        space = parse_space([str(write_experiment(here)), "optimizer.name=sgd,mine:Sgd"])
        request = Request(space, "grid", pruner="none", trials=2, seed=0, lanes=2, winners=0)
        found.append(settings_of(request, Data(here / "cache"))["code"])
    assert found[0] != found[1]
