"""What run and sweep folders say, read into plain rows for the registry.

Files may be in the middle of being written: a last line without its end is left for the next time.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config.keys import flatten
from train.errors import TrainError
from train.loop.layout import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    DESCRIPTION,
    FAILURE,
    IDENTITY,
    METRICS,
    RESULT,
    SWEEP,
    TRIALS,
    VALIDATIONS,
)

Cell = int | float | str | None
_TAIL = 64  # bytes before a position that tell whether a log is still the same one
_NAMED = re.compile(r"(.+)-[0-9a-f]{12}(-\d+)?")
_WATCHED = (CONFIG, RESULT, METRICS, VALIDATIONS, FAILURE, CHECKPOINTS, TRIALS)
_OF_A_ROW = ("step", "epoch", "part")
_UNSEARCHED = ("run_id", "experiment", "notes")  # of result.json: columns, or prose


@dataclass(frozen=True)
class LogPosition:
    """How far a log was read: its inode, the bytes, and the last few of them."""

    inode: int
    size: int
    tail: bytes


@dataclass(frozen=True)
class Point:
    """One metric of one part after some steps."""

    part: str
    name: str
    step: int | None
    epoch: float | None
    value: Cell


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint of a run; `best` is rewritten, so a step belongs to it."""

    name: str
    step: int | None
    epoch: float | None


@dataclass(frozen=True)
class Validation:
    """A metric of a snapshot that was evaluated after the training."""

    snapshot: Snapshot
    part: str
    name: str
    value: Cell


@dataclass(frozen=True)
class RunRecord:
    """All that the registry keeps of a run.

    Attributes:
        columns: of the table `runs`.
        values: config and result, dotted key -> value.
        continues: whether `points` are only those since the position given to `read_run`.
    """

    columns: dict[str, Cell]
    values: dict[str, Cell]
    continues: bool
    points: list[Point]
    position: LogPosition | None
    snapshots: list[Snapshot]
    validations: list[Validation]


def is_run(folder: Path) -> bool:
    """Whether a training began in this folder."""
    return (folder / CONFIG).is_file() or (folder / IDENTITY).is_file()


def is_sweep(folder: Path) -> bool:
    """Whether this is the folder of a sweep."""
    return (folder / SWEEP).is_file()


def signature(folder: Path) -> str:
    """Changes when a training, a validation or a sweep wrote something."""
    seen = []
    for name in _WATCHED:
        try:
            found = os.stat(folder / name)
        except OSError:
            continue
        seen.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return "\n".join(seen)


def read_run(folder: Path, since: LogPosition | None = None) -> RunRecord:
    """Read a run's folder.

    Args:
        since: how far the log was read before; lines before it are not read again.

    Raises:
        TrainError: a file cannot be understood; the text names it.
    """
    seen = signature(folder)  # taken first: what changes while reading is read again later
    result = _json(folder / RESULT)
    failure = _text(folder / FAILURE)
    finished = (folder / RESULT).is_file()
    status = "finished" if finished else "failed" if failure is not None else "unfinished"
    identity = _json(folder / IDENTITY)
    named = _NAMED.fullmatch(folder.name)
    validations = _validations(folder / VALIDATIONS)
    snapshots = _snapshots(folder / CHECKPOINTS)
    values = {key: value for key, value in result.items() if key not in _UNSEARCHED}
    for metrics in values.get("metrics", {}).values():
        metrics.pop("reasons", None)
    values = flatten(values) | flatten(_toml(folder / CONFIG))
    best = {item.name: item for item in snapshots}.get(BEST)
    for found in validations if finished else ():
        if found.snapshot == best:
            values.setdefault(f"metrics.{found.part}.{found.name}", found.value)
    continues, lines, position = _new_lines(folder / METRICS, since, containing=b'"part"')
    columns: dict[str, Cell] = {
        "run": folder.name,
        "experiment": result.get("experiment") or (named.group(1) if named else folder.name),
        "status": status,
        "reason": failure.strip() if status == "failed" and failure else None,
        **{key: identity.get(key) for key in ("config", "data", "code")},
        "began": _time(folder / CONFIG),
        "ended": _time(folder / RESULT),
        "signature": seen,
    }
    return RunRecord(
        columns=columns,
        values={key: cell(value) for key, value in values.items()},
        continues=continues,
        points=list(_points(folder / METRICS, lines)),
        position=position,
        snapshots=snapshots,
        validations=validations,
    )


def read_sweep(folder: Path) -> tuple[dict[str, Cell], list[dict[str, Cell]]]:
    """Columns of a sweep, and of its finished trials. Raises TrainError as `read_run`."""
    seen = signature(folder)
    settings = flatten(_toml(folder / SWEEP))
    columns: dict[str, Cell] = {
        "sweep": folder.name,
        "settings": json.dumps(settings, ensure_ascii=False, default=str),
        "began": _time(folder / SWEEP),
        "signature": seen,
    }
    known = ("trial", "status", "value", "params")
    trials = []
    for row in _json_lines(folder / TRIALS, "trial"):
        more = {key: value for key, value in row.items() if key not in known}
        trials.append(
            {
                "trial": row["trial"],
                "status": row.get("status"),
                "value": cell(row.get("value")),
                "params": json.dumps(row.get("params", {}), ensure_ascii=False),
                "more": json.dumps(more, ensure_ascii=False),
            }
        )
    return columns, trials


def cell(value: Any) -> Cell:
    """A value as the registry stores it: booleans as `true` and `false`, lists as JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, float | str):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _points(path: Path, lines: list[bytes]) -> Iterator[Point]:
    for row in _parsed(path, lines):
        if "part" not in row:  # somewhere else in the line
            continue
        for name, value in row.items():
            if name not in _OF_A_ROW:
                yield Point(row["part"], name, row.get("step"), row.get("epoch"), cell(value))


def _new_lines(
    path: Path, since: LogPosition | None, containing: bytes = b""
) -> tuple[bool, list[bytes], LogPosition | None]:
    """Whole lines after a position, or all of them where the log is not the one it was."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False, [], None
    with file:
        inode = os.fstat(file.fileno()).st_ino
        continues = False
        if since is not None and since.inode == inode:
            file.seek(since.size - len(since.tail))
            continues = file.read(len(since.tail)) == since.tail
        size = since.size if since is not None and continues else 0
        file.seek(size)
        lines = []
        for line in file:
            if not line.endswith(b"\n"):
                break
            size += len(line)
            if containing in line:
                lines.append(line)
        length = min(size, _TAIL)
        file.seek(size - length)
        return continues, lines, LogPosition(inode, size, file.read(length))


def _json_lines(path: Path, *required: str) -> Iterator[dict[str, Any]]:
    return _parsed(path, _new_lines(path, None)[1], *required)


def _parsed(path: Path, lines: list[bytes], *required: str) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TrainError(f"{path}: not valid JSON: {error}: {line[:60]!r}") from None
        if not isinstance(row, dict) or not row.keys() >= set(required):
            keys = f" with {', '.join(required)}" if required else ""
            raise TrainError(f"{path}: expected an object{keys} a line, found {line[:60]!r}")
        yield row


def _snapshots(folder: Path) -> list[Snapshot]:
    from vqa_cache.system.durable import (
        is_temporary,  # loads numpy, which `ls` has no other use for
    )

    found = []
    for path in sorted(folder.glob(f"*/{DESCRIPTION}")):
        if is_temporary(path.parent):
            continue
        with suppress(TrainError):  # a damaged one; who loads it says so
            about = _json(path)
            found.append(Snapshot(path.parent.name, about.get("step"), about.get("epoch")))
    return found


def _validations(path: Path) -> list[Validation]:
    latest: dict[tuple[Snapshot, str, str], Cell] = {}
    for row in _json_lines(path, "snapshot", "part", "metrics"):
        snapshot = Snapshot(row["snapshot"], row.get("step"), row.get("epoch"))
        for name, value in row["metrics"].items():
            latest[snapshot, row["part"], name] = cell(value)
    return [Validation(*key, value) for key, value in latest.items()]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _json(path: Path) -> dict[str, Any]:
    """An object, empty where there is no file."""
    text = _text(path)
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise TrainError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise TrainError(f"{path}: expected an object, found {type(values).__name__}")
    return values


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(_text(path) or "")
    except tomllib.TOMLDecodeError as error:
        raise TrainError(f"{path}: not valid TOML: {error}") from None


def _time(path: Path) -> float | None:
    """When a file was written, seconds since 1970."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
