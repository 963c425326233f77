"""How the anonymous memory of a running stage 1 grows (Linux)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_SECONDS_BETWEEN_LOOKS = 0.02
_RECORDS = "tables/image/*/*/*/records/[!.]*.json"


def memory_growth(arguments: list[str], cache: Path) -> float:
    """MiB of RssAnon above the level at the commit of the first shard, at most, over the rest of a
    run of `python -m precompute`.

    Args:
        arguments: of the command, which has to write several shards of one table.
        cache: the `--cache` among them, not there yet.

    Raises:
        RuntimeError: the command failed, or ended before it could be watched.
    """
    command = [sys.executable, "-m", "precompute", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    level, highest = 0, 0
    while process.poll() is None:
        anonymous = anonymous_memory(process.pid)
        if level:
            highest = max(highest, anonymous)
        elif any(cache.glob(_RECORDS)):
            level = anonymous
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    process.stderr.close()
    if process.returncode or not highest:
        raise RuntimeError(f"stage 1 ended with {process.returncode}: {said}")
    return (highest - level) / 2**20


def anonymous_memory(process: int) -> int:
    """Bytes of a process's anonymous memory; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
