"""What makes a run the same run: its config, the data it reads, the code that trains it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from train.components.families import CHOSEN
from train.components.lookup import user_file
from train.components.user_code import with_imports
from vqa_cache.keys import json_digest

if TYPE_CHECKING:
    from train.config.schema import Config

TRAIN = Path(__file__).parent.parent
# the rooms whose code computes; what a run is listed, compared and reported by leaves it alone
ROOMS = (
    "config", "inputs", "questions", "attention", "fusion", "heads", "losses", "layers", "metrics",
    "engine", "lanes", "loop", "evaluation",
)  # fmt: skip
ANSWERS = TRAIN.parent / "data" / "answers.py"  # how answers are normalised


def code_digest(components: Iterable[str] = ()) -> str:
    """Hex digest over the Python files that a training computes with, a user's own among them.

    Args:
        components: their names; behind a user's own ("my_file:MyHead") stand its file and what that
            imports from the working directory.
    """
    named = (user_file(name) for name in components)
    own = {path for file in named if file is not None for path in with_imports(file)}
    digest = hashlib.sha256()
    ours = {path for room in ROOMS for path in (TRAIN / room).rglob("*.py")} | {ANSWERS}
    for root, paths in ((TRAIN.parent, ours), (Path.cwd(), own)):
        for path in sorted(paths):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def component_names(config: Config) -> list[str]:
    """The names of the components that the sections choose."""
    chosen = [getattr(config, section) for section in CHOSEN]
    return [component.name for component in chosen if component is not None]


def identity_of(config: Config, data_digest: str) -> dict[str, str]:
    """Digests of the three things that a run depends on."""
    return {
        "config": json_digest(config.identity()),
        "data": data_digest,
        "code": code_digest(component_names(config)),
    }


def run_id(name: str, identity: dict[str, str]) -> str:
    """`<name>-<12 hex digits>`."""
    return f"{name}-{json_digest(identity)[:12]}"
