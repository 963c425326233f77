"""A sweep's folder: `sweep.toml`, what was asked for, and `trials.jsonl`, the only record.

A line of trials.jsonl is a finished trial. The lines of a pack are written together and synced;
what a writer that died left behind a whole pack is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

from train.config.files import to_toml
from train.errors import TrainError
from vqa_cache.system.durable import sync_folder, write_file

SETTINGS, TRIALS = "sweep.toml", "trials.jsonl"
Row = dict[str, Any]


class Record:
    """The finished trials of a sweep. Use it as a context: one process at a time writes it.

    Attributes:
        settings: those that the sweep was begun with.
        rows: number -> trial.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """
        Args:
            settings: written where the sweep begins.

        Raises:
            TrainError: another process runs this sweep, or a line is damaged.
        """
        self.path = folder / TRIALS
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SETTINGS).exists():
            write_file(folder / SETTINGS, to_toml(settings).encode())
        self._file: BufferedRandom = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sync_folder(folder)
            self.settings = _settings(folder / SETTINGS)
            self.rows = {row["trial"]: row for row in self._read()}
        except BlockingIOError:
            self._file.close()
            raise TrainError(f"{folder}: another process runs this sweep; wait for it") from None
        except TrainError:
            self._file.close()
            raise

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: Sequence[Row]) -> None:
        """Add the trials of one pack; they are durable when this returns."""
        lines = [json.dumps({**row, "of_pack": len(rows)}, allow_nan=False) for row in rows]
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows |= {row["trial"]: row for row in map(json.loads, lines)}

    def _read(self) -> list[Row]:
        """Rows of whole packs; what follows the last of them is cut off."""
        self._file.seek(0)
        rows: list[Row] = []
        pack: list[Row] = []
        whole = end = 0
        lines = self._file.read().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            row = _row(line)
            if row is None:
                if number < len(lines):
                    raise TrainError(
                        f"{self.path}:{number}: not a trial; mend the line, or remove the sweep's "
                        "folder to begin again"
                    )
                break
            end += len(line)
            pack.append(row)
            if len(pack) == row["of_pack"]:
                rows, pack, whole = rows + pack, [], end
        if whole < sum(map(len, lines)):
            self._file.truncate(whole)
            os.fsync(self._file.fileno())
        return rows


def _settings(path: Path) -> dict[str, Any]:
    """Raises TrainError for a file that is no TOML."""
    try:
        return tomllib.loads(path.read_text())
    except ValueError as error:
        raise TrainError(
            f"{path}: {error}; the file was changed: remove the sweep's folder to begin again"
        ) from None


def _row(line: bytes) -> Row | None:
    """A whole line, or None."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(row, dict) and {"trial", "params", "status", "of_pack"} <= row.keys()
    return row if fits else None
