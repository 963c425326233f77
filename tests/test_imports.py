"""Who may import whom, and what importing loads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("benchmarks", "data", "vqa_cache", "precompute", "train")
ALLOWED = {
    "benchmarks": {"benchmarks", "data", "vqa_cache", "precompute", "train"},
    "data": {"data"},
    "vqa_cache": {"vqa_cache"},
    "precompute": {"precompute", "data", "vqa_cache"},
    "train": {"train", "vqa_cache", "data.answers"},
}
PREDICT = Path("train/predict/encoding.py")  # answers about a new image, so it loads an encoder


def imported(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, dotted module and whether it stands at the top of every import in a file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # `from data import answers` imports data.answers
                yield node.lineno, f"{module}.{alias.name}", id(node) in top


def allowed(package: str, module: str) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in ALLOWED[package])


def sources() -> list[Path]:
    return [path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))]


def test_every_package_has_sources() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(OURS)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_in_their_house(path: Path) -> None:
    name = path.relative_to(ROOT)
    wrong = []
    for line, module, top in imported(path):
        if module.split(".")[0] not in OURS or allowed(name.parts[0], module):
            continue
        if name == PREDICT and module.startswith("precompute.encoders") and not top:
            continue
        wrong.append(f"{name}:{line} imports {module}")
    assert wrong == []


def test_the_rule_itself_catches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "x.py"
    path.write_text(
        "from data import vqa2, answers\nimport precompute.items\ndef f():\n import data"
    )
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    found = [module for _, module, _ in imported(path) if not allowed("train", module)]
    assert found == ["data.vqa2", "precompute.items", "data"]


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh process has after running code."""
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_opening_a_cache_loads_little() -> None:
    heavy = {"pandas", "pydantic", "zarr", "torch", "transformers", "timm", "PIL", "rich", "click"}
    assert loaded("import vqa_cache, vqa_cache.table, vqa_cache.examples") & heavy == set()


def test_the_data_package_itself_imports_nothing() -> None:
    tree = ast.parse((ROOT / "data" / "__init__.py").read_text())
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree))


def test_answers_need_the_standard_library_alone() -> None:
    names = {module.split(".")[0] for _, module, _ in imported(ROOT / "data" / "answers.py")}
    assert names <= set(sys.stdlib_module_names) | {"__future__"}


def test_the_step_engine_and_the_gpu_benchmark_need_few_libraries() -> None:
    """torch, numpy, h5py, xxhash, click, rich, safetensors; all others are hidden from them."""
    hidden = "pydantic pandas optuna zarr transformers timm open_clip PIL matplotlib tensorboard"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden.split()!r}))\n"
        "import train.engine.step, train.engine.cuda_graph, train.engine.precision\n"
        "import train.evaluation.evaluate, train.metrics.classification\n"
        "import train.heads.mlp, train.heads.cosine, train.fusion.concat\n"
        "import train.losses.cross_entropy\n"
        "import train.lanes.step, train.lanes.loss\n"
        "import benchmarks.gpu\n"
        "from benchmarks.__main__ import main\n"
        "sys.argv = ['benchmarks', 'gpu', '--json']\n"
        "import torch; torch.cuda.is_available = lambda: False\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found == {"gpu": None, "reason": "torch finds no CUDA device: nothing was measured"}
