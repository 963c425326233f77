"""How the anonymous memory of a process grows (Linux)."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import click

from benchmarks.measuring.processes import how_it_ended, started

_SECONDS_BETWEEN_LOOKS = 0.02
_RECORDS = "tables/image/*/*/*/records/[!.]*.json"


def memory_growth(arguments: list[str], cache: Path) -> float:
    """MiB of RssAnon above the level at the commit of the first shard, at most, over the rest of a
    run of `python -m precompute`.

    Args:
        arguments: of the command, which has to write several shards of one table.
        cache: the `--cache` among them, not there yet.

    Raises:
        click.ClickException: the command failed, or ended before it could be watched.
    """
    quiet = ("-m", "precompute", *arguments, "--json")  # only an error is said, on our stderr
    with started(*quiet, stdout=subprocess.DEVNULL) as process:
        level, highest = _watch(process, cache)
    if process.returncode:
        raise click.ClickException(f"stage 1 {how_it_ended(process.returncode)}; it has said why")
    if not highest:
        raise click.ClickException("stage 1 ended before its memory could be watched")
    return (highest - level) / 2**20


def _watch(process: subprocess.Popen[str], cache: Path) -> tuple[int, int]:
    """Bytes of anonymous memory at the first commit, and at most from then to the end."""
    level, highest = 0, 0
    while process.poll() is None:
        anonymous = bytes_of(process.pid, "RssAnon")
        if level:
            highest = max(highest, anonymous)
        elif any(cache.glob(_RECORDS)):
            level = anonymous
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return level, highest


class PeakMemory:
    """Watches the memory of this process that no file stands behind.

    Attributes:
        peak: bytes.
    """

    def __init__(self) -> None:
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, bytes_of("self", "RssAnon", "RssShmem"))
            time.sleep(0.05)


def bytes_of(process: int | str, *kinds: str) -> int:
    """Memory of some kinds that a process holds, added; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    status = dict(line.split(":", 1) for line in lines)
    return sum(int(status[kind].split()[0]) * 1024 for kind in kinds if kind in status)
