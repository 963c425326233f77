"""The source files that a module can execute, found by reading them: nothing is imported.

A module reaches each one that its text imports, at the top or inside a function, or names in quotes
as the dicts of components do ("train.heads:MlpHead"), and so on from there. A package of ours that
runs only because something inside it is imported reaches what its top imports: its functions, such
as `train.load`, are not called. Looked for are the packages of this project and, for a user's own
files, the working directory, where `python -m` looks first. A name that a program puts together is
not found.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGES = ("train", "vqa_cache", "data")

_BLOCK = r":.*\n(?:[ \t)].*\n|[ \t]*\n)*"  # to the next line that begins at the margin
_DOCSTRING = re.compile(r'\A"""[\s\S]*?"""')
_TYPES_ALONE = re.compile(rf"\nif TYPE_CHECKING{_BLOCK}")
_FUNCTION = re.compile(rf"^(?:async )?def [^:]*{_BLOCK}", re.MULTILINE)
_COMMENT = re.compile(r"#.*")
_IMPORT = re.compile(
    r"(?:from[ \t]+(?P<base>[\w.]+)[ \t]+import\b|import[ \t])[ \t]*(?P<names>\([^)]*\)|[^;\n]*)"
)
_QUOTED = re.compile(rf"""["']((?:{"|".join(PACKAGES)})\.[\w.]+)(?::\w+)?["']""")


class Module(NamedTuple):
    """A module by its dotted name, and its file."""

    name: str
    path: Path


def find_module(name: str) -> Module | None:
    """The module of that name, if it is the project's or in the working directory."""
    pieces = name.split(".")
    if not all(map(str.isidentifier, pieces)):
        return None
    place = os.path.join(ROOT if pieces[0] in PACKAGES else "", *pieces)
    for path in (f"{place}/__init__.py", f"{place}.py"):
        if os.path.isfile(path):
            return Module(name, Path(path).absolute())
    return None


def reachable(roots: Iterable[Module]) -> list[Module]:
    """The roots and every module that they can execute, sorted by name. Raises OSError."""
    find = cache(find_module)
    found: dict[Module, bool] = {}  # whether its functions may be called
    left = [(root, True) for root in roots]
    while left:
        module, called = left.pop()
        if found.get(module, False) or (module in found and not called):
            continue
        found[module] = called
        for name in _named(module, find, called=called):
            *packages, whole = accumulate(name.split("."), "{}.{}".format)
            theirs = name.partition(".")[0] not in PACKAGES
            left += [(package, theirs) for package in map(find, packages) if package]
            left += [(wanted, True) for wanted in [find(whole)] if wanted]
    return sorted(found)


def _named(module: Module, find: Callable[[str], Module | None], *, called: bool) -> Iterator[str]:
    """Dotted names in a module's imports and quotes; not all are modules."""
    text = module.path.read_text(encoding="utf-8", errors="replace")
    text = _TYPES_ALONE.sub("\n", _DOCSTRING.sub("", text, count=1))
    if not called:
        text = _FUNCTION.sub("", text)
    yield from _QUOTED.findall(text)
    package = module.name if module.path.stem == "__init__" else module.name.rpartition(".")[0]
    for statement in _IMPORT.finditer(_COMMENT.sub("", text).replace("\\\n", " ")):
        base, listed = statement["base"], statement["names"].strip("()").split(",")
        names = [words[0] for piece in listed if (words := piece.split())]
        if base is None:
            for name in names:  # `import a.b` gives the functions of `a`, too
                yield from accumulate(name.split("."), "{}.{}".format)
            continue
        try:
            base = resolve_name(base, package)
        except ImportError:  # a relative import that Python refuses as well
            continue
        for name in names:
            yield f"{base}.{name}" if find(f"{base}.{name}") else base
