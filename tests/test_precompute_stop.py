"""A stop of stage 1 says what is kept and what is lost; a shard that is nearly done ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RESNET, write_dataset

import vqa_cache
from precompute import encode
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings
from vqa_cache.system.signals import Stopped


class Reporter(ConsoleReporter):
    """Remembers its lines."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def after(batches: int) -> Callable[[], bool]:
    """A signal that comes after so many looks."""
    looks = iter(range(1_000_000))
    return lambda: next(looks) >= batches


@pytest.mark.parametrize(
    ("seconds", "kept", "lost"), [(1e6, 8, 0), (0.0, 4, 2)], ids=["ended", "given up"]
)
def test_a_stop_ends_a_shard_or_says_what_is_lost(
    libraries: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    kept: int,
    lost: int,
) -> None:
    monkeypatch.setattr(encode, "SECONDS_TO_END", seconds)
    data = write_dataset(tmp_path / "data", images=12, train=12, test=0)
    settings = EncoderSettings(precision="fp32", batch_size=1, rows_per_shard=4)
    cache, reporter = tmp_path / "cache", Reporter()
    request = Request("jsonl", str(data), str(cache), image=(RESNET,), settings=settings)
    # looked at before each shard and each batch: 1 + 4 of the first shard, 1 + 2 of the second
    with pytest.raises(Stopped) as stopped:
        precompute(request, reporter, after(8))
    [table] = vqa_cache.open(cache).tables.values()
    assert str(stopped.value) == (
        f"stopped by a signal: {table.name}: {kept} of 12 rows are kept, {lost} of a shard of 4 "
        "are lost; the same command goes on"
    )
    assert len(table) == kept
    said = [line for line in reporter.lines if line.startswith("stopping: 2 of 4 rows are left")]
    assert len(said) == (1 if lost == 0 else 0)
    [result] = precompute(request, reporter)
    assert (result.present, result.encoded) == (kept, 12 - kept)

    whole = tmp_path / "whole"
    precompute(
        Request("jsonl", str(data), str(whole), image=(RESNET,), settings=settings), reporter
    )
    for file in whole.glob("tables/**/*.h5"):
        assert file.read_bytes() == (cache / file.relative_to(whole)).read_bytes()
