"""Which finished run a command led to: typed again it is answered at once, without importing torch.

An entry holds as long as all that decides on the run is as it was: the experiment's values, files
that they name, the code, and every file of the cache. `<runs>/commands.json` is an accelerator
only: deleted, damaged or written by two processes at once, it costs the time that it saves.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from train.config.identity import TRAIN, code_digest
from train.loop.layout import COMMANDS, RESULT
from vqa_cache.experiments import ExperimentError, read_experiment
from vqa_cache.system.durable import write_file

_CHANGES_BY_ITSELF = ("memo.sqlite", "commands.jsonl", "lock")  # files of a cache that hold no data


class Remembered:
    """What one command led to, once it did.

    Args:
        name: the experiment, as typed.
        overrides: "KEY=VALUE", as typed.
        cache: the cache's folder.
        runs: the folder of all runs.
    """

    def __init__(self, name: str, overrides: Iterable[str], cache: Path, runs: Path) -> None:
        self._file = runs / COMMANDS
        self._runs = runs
        self._key = _command_key(name, list(overrides), cache)

    def finished(self) -> Path | None:
        """The folder of the finished run; None where it is not known, or not there any more."""
        name = self._entries().get(self._key or "")
        if not isinstance(name, str) or not (self._runs / name / RESULT).is_file():
            return None
        return self._runs / name

    def keep(self, run: Path) -> None:
        """The command led to this run."""
        if self._key is not None and self._entries().get(self._key) != run.name:
            entries = {**self._entries(), self._key: run.name}
            write_file(self._file, (json.dumps(entries, indent=0) + "\n").encode())

    def _entries(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _command_key(name: str, overrides: list[str], cache: Path) -> str | None:
    """Digest of all that decides on the run; None where the experiment cannot be read."""
    try:
        read = read_experiment(name, overrides)
        sections = [value for value in read.values.values() if isinstance(value, Mapping)]
        code = code_digest(str(section.get("name", "")) for section in sections)
        decides = {
            "experiment": [read.path.stem, read.values, read.stood_in, read.errors],
            "typed": [name, *(one for one in overrides if one.startswith("features."))],
            "code": [code, _digest(_modules())],
            "files": [_stamp(Path(text)) for text in _texts(read.values)],
            "cache": [_stamp(path) for path in _files(cache)],
        }
    except (ExperimentError, OSError):
        return None
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def _modules() -> list[Path]:
    """The project's modules that read experiments and caches, beside those that compute."""
    return [*sorted(TRAIN.rglob("*.py")), *sorted((TRAIN.parent / "vqa_cache").rglob("*.py"))]


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """All strings of nested values: those that are paths name files, a vocabulary for example."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _files(cache: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(cache):
        folders.sort()
        yield from (
            Path(folder, name) for name in sorted(names) if not name.startswith(_CHANGES_BY_ITSELF)
        )


def _stamp(path: Path) -> list[Any]:
    """A path with size, times and inode of what is there; with nothing where nothing is."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
