"""What makes a run the same run: its config, the data it reads, the code that trains it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from train.config import COMPONENTS, Config
from train.lookup import user_file
from vqa_cache.keys import json_digest

CODE = Path(__file__).parent


def code_digest(extra: tuple[Path, ...] = ()) -> str:
    """Hex digest over the Python files of this package and over a user's own files."""
    digest = hashlib.sha256()
    for path in [*sorted(CODE.rglob("*.py")), *extra]:
        name = str(path.relative_to(CODE)) if path.is_relative_to(CODE) else path.name
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def user_files(config: Config) -> tuple[Path, ...]:
    """Files of a user's own components that a config names."""
    named: Iterable[Path | None] = (
        user_file(getattr(config, section).name) for section in COMPONENTS
    )
    return tuple(sorted({path for path in named if path is not None}))


def identity_of(config: Config, data_digest: str) -> dict[str, str]:
    """Digests of the three things that a run depends on."""
    return {
        "config": json_digest(config.identity()),
        "data": data_digest,
        "code": code_digest(user_files(config)),
    }


def run_id(name: str, identity: dict[str, str]) -> str:
    """`<name>-<12 hex digits>`."""
    return f"{name}-{json_digest(identity)[:12]}"
