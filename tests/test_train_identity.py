"""What the code digest of a run or a sweep covers, and what it leaves out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_imports import ALLOWED
from test_train_small_cache import build_cache, small_dataset, write_experiment

from train import source
from train.identity import RUN, code_digest
from train.source import find_module, reachable
from train.sweep.engine import Data
from train.sweep.request import Request
from train.sweep.run import CAMPAIGN, settings_of
from train.sweep.space import parse_space

ROOT = source.ROOT


def covered(main: str) -> set[str]:
    module = find_module(main)
    assert module is not None
    return {found.name for found in reachable([module])}


# ---------------------------------------------------------------- nothing that computes is left out


def test_the_packages_are_those_that_train_may_import() -> None:
    assert set(source.PACKAGES) == {name.partition(".")[0] for name in ALLOWED["train"]}


COMPUTE = """
import json, sys
from pathlib import Path
from rich.console import Console
{compute}
root = Path({root!r})
files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
own = [Path(file) for file in files if file and Path(file).is_relative_to(root)]
print(json.dumps([str(path.relative_to(root)) for path in own]))
"""
RUN_ALONE = """
import vqa_cache
from train.computation import compute_run
from train.config import load_experiment
from train.fit import Watch
from train.training_data import load_data
experiment = load_experiment(sys.argv[1])
data = load_data(experiment, vqa_cache.open(sys.argv[2]))
watch = Watch(Console(quiet=True))
folder = Path(sys.argv[3]) / "run"
done = compute_run(experiment, data, folder=folder, write_predictions=lambda *_: None, watch=watch)
assert done.baselines["question_only"]
"""
TRIALS_ALONE = """
from train.fit import Watch
from train.sweep.campaign import Campaign
from train.sweep.engine import Data, run_packs
from train.sweep.record import Record
from train.sweep.request import Request
from train.sweep.space import parse_space
space = parse_space([sys.argv[1], "optimizer.lr=log:1e-3:1e-1"])
request = Request(space, "tpe", pruner="halving", trials=8, seed=0, lanes=4, winners=0)
watch = Watch(Console(quiet=True))
with Record(Path(sys.argv[3]) / "sweep", {}) as record:
    assert len(Campaign(request, Data(Path(sys.argv[2])), record, watch, run_packs).run()) == 8
"""


@pytest.mark.parametrize(("main", "compute"), [(RUN, RUN_ALONE), (CAMPAIGN, TRIALS_ALONE)])
def test_whatever_a_computation_loads_is_covered(tmp_path: Path, main: str, compute: str) -> None:
    """Modules that a real run, or real trials, have loaded in the end, however that came about."""
    build_cache(tmp_path / "cache", small_dataset())
    arguments = [str(write_experiment(tmp_path)), str(tmp_path / "cache"), str(tmp_path)]
    program = COMPUTE.format(compute=compute, root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    module = find_module(main)
    assert module is not None
    assert loaded <= {str(found.path.relative_to(ROOT)) for found in reachable([module])}
    assert {"train/heads.py", "train/metrics.py", "vqa_cache/table.py"} <= loaded


AROUND_A_RUN = {
    "train.trainer",
    "train.result",
    "train.tensorboard",
    "train.runs.folder",
    "train.runs.registry",
    "train.runs.records",
    "train.runs.database",
}


def test_what_stands_around_a_run_is_known() -> None:
    """A new name here is imported by the trainer alone: it may keep, show and count, but nothing
    that it does may change a figure. What computes belongs under train/computation.py."""
    assert covered("train.trainer") - covered(RUN) == AROUND_A_RUN
    around = covered("train.sweep.run") - covered(CAMPAIGN) - covered(RUN)
    assert around == AROUND_A_RUN | {"train.sweep.run", "train.sweep.winners"}


# ---------------------------------------------------------------- a byte of a file


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, to change files of."""
    folder = tmp_path_factory.mktemp("copy")
    for package in source.PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    return folder


@pytest.fixture
def copy(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source, "ROOT", copied)
    return copied


def changes(path: Path, main: str) -> bool:
    """Whether a change of a file changes the digest."""
    before, content = code_digest(main), path.read_bytes()
    path.write_bytes(content + b"#")
    after = code_digest(main)
    path.write_bytes(content)
    assert code_digest(main) == before
    return after != before


COMPUTES = [
    *("computation", "fit", "step", "order", "heads", "losses", "optimizers", "fusion", "metrics"),
    *("selection", "baselines", "training_data", "tables", "vocabulary", "config", "__init__"),
]


@pytest.mark.parametrize(
    "path",
    [
        *(f"train/{name}.py" for name in COMPUTES),
        *("vqa_cache/table.py", "vqa_cache/dtypes.py", "vqa_cache/examples.py", "data/answers.py"),
    ],
)
def test_what_computes_changes_the_id(copy: Path, path: str) -> None:
    assert changes(copy / path, RUN)


@pytest.mark.parametrize(
    "path",
    [
        *("train/__main__.py", "train/command_line.py", "train/result.py", "train/tensorboard.py"),
        *("train/runs/registry.py", "train/runs/folder.py", "train/runs/__main__.py"),
        *("train/sweep/engine.py", "train/sweep/engine_ray.py", "train/sweep/report.py"),
        *("train/lanes/step.py", "train/lr_find.py", "train/ridge.py"),
        *("vqa_cache/verify.py", "vqa_cache/exporting.py", "data/vqa2.py"),
    ],
)
def test_what_does_not_compute_leaves_the_id_alone(copy: Path, path: str) -> None:
    assert not changes(copy / path, RUN)


def test_a_sweep_covers_its_trials_and_not_where_they_are_trained(copy: Path) -> None:
    for name in ("lanes/step", "sweep/pack", "sweep/propose", "sweep/campaign", "heads"):
        assert changes(copy / f"train/{name}.py", CAMPAIGN), name
    for name in ("sweep/engine_ray", "sweep/run", "sweep/report", "sweep/winners", "result"):
        assert not changes(copy / f"train/{name}.py", CAMPAIGN), name


@pytest.mark.parametrize("known", ["heads", "metrics"])
def test_a_component_in_a_file_of_its_own_is_covered(copy: Path, known: str) -> None:
    """One line in the dict is enough."""
    listed, own = copy / f"train/{known}.py", copy / "train/of_its_own.py"
    text = listed.read_text()
    own.write_text("")
    assert not changes(own, RUN)
    listed.write_text(text.replace("str] = {\n", 'str] = {\n    "own": "train.of_its_own:Own",\n'))
    assert changes(own, RUN)
    own.unlink()
    listed.write_text(text)


# ---------------------------------------------------------------- a user's files


def test_a_users_component_is_covered_with_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("from layers import Layer\nfrom train.lanes import step")
    (tmp_path / "layers.py").write_text("import torch")
    plain = code_digest()
    digests = [code_digest(components=["mine:Head", "adamw"])]
    for name in ("mine.py", "layers.py"):
        with (tmp_path / name).open("a") as file:
            file.write("\n#")
        digests.append(code_digest(components=["mine:Head", "adamw"]))
    assert len({plain, *digests}) == 4
    assert code_digest(components=["mlp", "adamw"]) == plain == code_digest()


def test_a_sweep_covers_every_component_that_its_trials_choose_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_cache(tmp_path / "cache", small_dataset())
    monkeypatch.chdir(tmp_path)
    found = []
    for text in ("from train.optimizers import Sgd", "from train.optimizers import Adam as Sgd"):
        (tmp_path / "mine.py").write_text(text)
        space = parse_space([str(write_experiment(tmp_path)), "optimizer.name=sgd,mine:Sgd"])
        request = Request(space, "grid", pruner="none", trials=2, seed=0, lanes=2, winners=0)
        found.append(settings_of(request, Data(tmp_path / "cache"))["code"])
    assert found[0] != found[1]


def test_where_a_project_lies_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    found = []
    for folder, root in ((tmp_path / "a", ROOT), (tmp_path / "b", copy)):
        folder.mkdir()
        (folder / "mine.py").write_text("")
        monkeypatch.chdir(folder)
        monkeypatch.setattr(source, "ROOT", root)
        found.append(code_digest(components=["mine:Head"]))
    assert found[0] == found[1]
