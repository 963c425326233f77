"""What is fuzzed: each target writes its inputs once and then runs one of them, broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.fuzz import caches, files, foreign, formats

Attempt = Callable[[Random], None]


class Target(NamedTuple):
    """One target.

    Attributes:
        prepare: makes what is broken later, in a folder; what runs one input.
        share: of all inputs, in thousandths.
    """

    prepare: Callable[[Path], Attempt]
    share: int


TARGETS: dict[str, Target] = {
    "records": Target(caches.prepare_records, 470),
    "caches": Target(caches.prepare_caches, 15),
    "columns": Target(caches.prepare_columns, 15),
    "memo": Target(files.prepare_memo, 50),
    "toml": Target(files.prepare_toml, 60),
    "datasets": Target(formats.prepare_datasets, 210),
    "lists": Target(files.prepare_lists, 60),
    "imports": Target(foreign.prepare_imports, 60),
    "images": Target(foreign.prepare_images, 60),
}
