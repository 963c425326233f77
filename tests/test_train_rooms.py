"""The rooms of train/: a room imports only rooms below it; pieces stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_imports import OURS, ROOT, imported

SCIENCE = "questions attention fusion heads losses layers"
# the highest first; modules and rooms of one line may import each other
FLOORS = [
    "trainer __main__ lr_find ridge sweep predict export demo report",
    "runs",
    "evaluation",
    "loop",
    "lanes",
    "engine",
    SCIENCE,
    "metrics",
    "inputs",
    "config",
    "components command_line",
    "errors",
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names.split()}
MOST_LINES, MOST_OF_A_FUNCTION = 400, 60


def upward(path: Path) -> Iterator[str]:
    """The imports of a module of train that lead to a room above its own."""
    name = path.relative_to(ROOT / "train").parts[0].removesuffix(".py")
    for line, module, _ in imported(path):
        parts = module.split(".")
        if parts[0] == "train" and len(parts) > 1:
            assert parts[1] in FLOOR_OF, f"{path}:{line}: {module} is in no room"
            if FLOOR_OF[parts[1]] < FLOOR_OF[name]:
                yield f"{path.relative_to(ROOT)}:{line} imports {module}"


def test_no_room_imports_a_room_above_it() -> None:
    modules = [p for p in (ROOT / "train").rglob("*.py") if p != ROOT / "train" / "__init__.py"]
    assert len(modules) > 80
    assert [line for path in modules for line in upward(path)] == []


def test_the_walk_finds_an_import_upward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train" / "inputs" / "new.py"
    path.parent.mkdir(parents=True)
    path.write_text("def late():\n    from train.loop import fit\n")
    for module in ("test_imports", __name__):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    assert list(upward(path)) == ["train/inputs/new.py:2 imports train.loop.fit"]


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in (path for package in OURS for path in (ROOT / package).rglob("*.py")):
        text = path.read_text()
        if text.count("\n") > MOST_LINES:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_OF_A_FUNCTION:
                    long.append(
                        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines"
                    )
    assert long == []
