"""What makes a run the same run: its config, the data it reads, the code that computes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from train.config import COMPONENTS, Config
from train.lookup import user_file
from train.source import Module, find_module, reachable
from vqa_cache.keys import json_digest

RUN = "train.computation"


def code_digest(main: str = RUN, components: Iterable[str] = ()) -> str:
    """Hex digest over the source files that a computation can execute.

    Args:
        main: the module that defines it.
        components: names of components; the files behind a user's own ("my_file:MyHead") count.
    """
    start = find_module(main)
    assert start is not None, main
    named = ((name.partition(":")[0], user_file(name)) for name in components)
    own = [Module(name, path) for name, path in named if path is not None]
    digest = hashlib.sha256()
    for module in reachable([start, *own]):
        content = module.path.read_bytes()
        digest.update(f"{module.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def component_names(config: Config) -> list[str]:
    """The names of fusion, head, loss, optimiser and schedule."""
    return [getattr(config, section).name for section in COMPONENTS]


def identity_of(config: Config, data_digest: str) -> dict[str, str]:
    """Digests of the three things that a run depends on."""
    return {
        "config": json_digest(config.identity()),
        "data": data_digest,
        "code": code_digest(components=component_names(config)),
    }


def run_id(name: str, identity: dict[str, str]) -> str:
    """`<name>-<12 hex digits>`."""
    return f"{name}-{json_digest(identity)[:12]}"
