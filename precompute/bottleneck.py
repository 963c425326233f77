"""Where the time of encoding went, and what would relieve it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Activity = Literal["preprocessing", "encoding", "writing"]
_WAIT = {
    "preprocessing": "for items to be read and preprocessed",
    "encoding": "for the encoder",
    "writing": "for the disk",
}
_RELIEF = {
    "preprocessing": "more --workers on more cores, or a faster disk under the dataset",
    "encoding": "a faster device, more cores, or bf16 on a processor that gains by it",
    "writing": "a faster disk under the cache",
}


class Bottleneck:
    """Counts what the encoding thread waits for: it alone decides the speed."""

    def __init__(self) -> None:
        self.seconds: dict[Activity, float] = dict.fromkeys(
            ("preprocessing", "encoding", "writing"), 0.0
        )

    @contextmanager
    def on(self, activity: Activity) -> Iterator[None]:
        """Count the block's time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - began

    def told(self, items: int, device: str) -> str:
        """One line: speed, the bottleneck, and what would relieve it."""
        total = sum(self.seconds.values()) or 1e-9
        worst = max(self.seconds, key=lambda activity: self.seconds[activity])
        share = round(100 * self.seconds[worst] / total)
        return (
            f"{items / total:,.0f} items/s on {device}; {share} % of the time went by waiting "
            f"{_WAIT[worst]}; what would help: {_RELIEF[worst]}"
        )
