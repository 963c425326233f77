"""A user's own file: the files that it imports from the working directory, and its mistakes."""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from train.errors import TrainError

_PROJECT = ("train", "vqa_cache", "data", "precompute", "benchmarks")  # also where it is run from


_PREFIX = "train_user_"  # of the modules that users' own files become


class UserCodeError(TrainError):
    """An error raised in or below a user's own file: its frames there, and the error itself."""


def module_name(name: str) -> str:
    """What a user's file is called among the imported modules, so that it hides no other."""
    return f"{_PREFIX}{name.replace('.', '_')}"


def users_error(error: BaseException) -> UserCodeError | None:
    """An error as the user's, where it was raised in or below a file of theirs; a line a frame."""
    loaded = {
        Path(module.__file__)
        for name, module in list(sys.modules.items())
        if name.startswith(_PREFIX) and module.__file__
    }
    own = {str(file) for path in loaded for file in with_imports(path)}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in own]
    inside = frames or getattr(error, "filename", None) in own
    if isinstance(error, TrainError) or not inside:
        return None
    lines = [f"{_shown(f.filename)}:{f.lineno} in {f.name}: {f.line}" for f in frames]
    said = str(error).strip().replace("\n", " ")
    if isinstance(error, SyntaxError):
        said = f"{error.msg} ({_shown(str(error.filename))}, line {error.lineno})"
    return UserCodeError("\n".join([*lines, f"{type(error).__name__}: {said}"]))


def _shown(path: str) -> str:
    own = Path(path)
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else path


def with_imports(path: Path) -> set[Path]:
    """The file and every one that it imports, at the top or inside a function, and so on.

    A module that is named by a string, or that lies outside the working directory, is not found.

    Args:
        path: a Python file; where it cannot be read as Python, it imports nothing.

    Raises:
        OSError: a file cannot be read.
    """
    found: set[Path] = set()
    left = [path]
    while left:
        file = left.pop()
        if file not in found:
            found.add(file)
            left += [one for name in _imported(file) for one in _files_of(name)]
    return found


def _imported(file: Path) -> Iterator[Path]:
    """Where the modules that a file imports would lie, without their suffix."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_place(Path.cwd(), alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = file.parents[node.level - 1] if node.level else Path.cwd()
            base = _place(above, node.module or "")
            yield base
            yield from (base / alias.name for alias in node.names)


def _place(folder: Path, module: str) -> Path:
    return folder.joinpath(*module.split("."))


def _files_of(module: Path) -> Iterator[Path]:
    """The module's file and those of the packages around it, as far as they exist."""
    here = Path.cwd()
    if not module.is_relative_to(here):
        return
    names = module.relative_to(here).parts
    if names and names[0] not in _PROJECT:
        for place in accumulate(names, Path.joinpath, initial=here):
            candidates = (place.with_name(f"{place.name}.py"), place / "__init__.py")
            yield from (file for file in candidates if place != here and file.is_file())
