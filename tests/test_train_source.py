"""Which source files a module can execute."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from train.source import ROOT, Module, find_module, reachable


def names_from(main: str) -> set[str]:
    module = find_module(main)
    assert module is not None
    return {found.name for found in reachable([module])}


# ---------------------------------------------------------------- this project, by a parser


def statements(node: ast.AST, *, called: bool) -> Iterator[ast.AST]:
    """All nodes but what type checkers alone read and, unless called, what functions hold."""
    for child in ast.iter_child_nodes(node):
        types_alone = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if types_alone or (isinstance(child, ast.FunctionDef) and not called):
            continue
        yield child
        yield from statements(child, called=called)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(module: Module, *, called: bool) -> Iterator[str]:
    for node in statements(parsed(module.path), called=called):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if find_module(name) else str(node.module)


def parsed_names_from(main: str) -> set[str]:
    seen: set[tuple[str, bool]] = set()
    left = [(main, True)]
    while left:
        name, called = left.pop()
        module = find_module(name)
        if module is None or (name, called) in seen:
            continue
        seen.add((name, called))
        package = name.rpartition(".")[0]
        left += [(package, False)] if package else []
        left += [(inner, True) for inner in imported(module, called=called)]
    return {name for name, _ in seen}


@pytest.mark.parametrize(
    "main", ["train.computation", "train.trainer", "train.sweep.run", "train.runs.validation"]
)
def test_reading_finds_what_a_parser_finds(main: str) -> None:
    assert names_from(main) == parsed_names_from(main)


# ---------------------------------------------------------------- a user's files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "layers.py").write_text("")
    (tmp_path / "layers.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "import layers",
        "import torch, layers as own",
        "import torch; import layers",
        "from layers import a, b",
        "from layers import *",
        "from pack import (\n    one,  # (the first, of two)\n    layers as own,\n)",
        "from pack import \\\n    one, layers",
        "import pack.layers",
        "try: import layers\nexcept ImportError: pass",
        "if True:\n    import layers",
        "class A:\n    def f(self):\n        from layers import a",
    ],
)
def test_every_spelling_of_an_import_counts(folder: Path, text: str) -> None:
    (folder / "mine.py").write_text(f"{text}\n")
    layers = {"pack", "pack.layers"} if "pack" in text else {"layers"}
    assert names_from("mine") == {"mine", *layers}


@pytest.mark.parametrize(
    "text",
    [
        '"""\nimport layers\n"""',
        "# import layers",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import layers\n\nimport json",
        "import absent.layers, json",
        "def f():\n    from .layers import a  # Python refuses it, too",
        "",
    ],
)
def test_what_is_never_imported_does_not(folder: Path, text: str) -> None:
    (folder / "mine.py").write_text(f"{text}\n")
    assert names_from("mine") == {"mine"}


def test_imports_are_followed_to_the_end(folder: Path) -> None:
    (folder / "mine.py").write_text("import pack")
    (folder / "pack" / "__init__.py").write_text("from . import layers")
    (folder / "pack" / "layers.py").write_text("from ..layers import a\nfrom .last import b")
    (folder / "pack" / "last.py").write_text("import mine")
    assert names_from("mine") == {"mine", "pack", "pack.layers", "pack.last"}


def test_a_users_file_reaches_the_project(folder: Path) -> None:
    (folder / "mine.py").write_text("from train.seeds import derive_seed")
    assert names_from("mine") == {"mine", "train", "train.seeds"}


def test_names_in_quotes_count(folder: Path) -> None:
    (folder / "mine.py").write_text("KNOWN = {'a': 'train.seeds:derive_seed', 'b': \"train.keys\"}")
    assert names_from("mine") == {"mine", "train", "train.seeds", "train.keys"}


def test_functions_of_a_package_count_where_it_is_named(folder: Path) -> None:
    """`train.load` reads run folders; who imports a module of `train` alone does not call it."""
    for text in ("from train import load", "import train", "import train.seeds"):
        (folder / "mine.py").write_text(text)
        assert "train.runs.folder" in names_from("mine"), text
    for text in ("from train import seeds", "from train.seeds import derive_seed"):
        (folder / "mine.py").write_text(text)
        assert "train.runs.folder" not in names_from("mine"), text


def test_functions_of_a_users_package_may_be_called_at_its_top(folder: Path) -> None:
    (folder / "pack" / "__init__.py").write_text("def patch():\n    import layers\n\npatch()")
    (folder / "mine.py").write_text("import pack.layers")
    assert names_from("mine") == {"mine", "pack", "pack.layers", "layers"}
    (folder / "mine.py").write_text("from pack.layers import a")
    assert names_from("mine") == {"mine", "pack", "pack.layers", "layers"}


def test_a_missing_root_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reachable([Module("gone", folder / "gone.py")])


def test_the_project_is_found_from_any_folder(folder: Path) -> None:
    assert find_module("train.step") == Module("train.step", ROOT / "train" / "step.py")
    assert find_module("step") is None
