"""What stage 1 over images cannot be faster than: its model's bare forward pass on tensors that are
in memory, and the processor time of decoding, spread over the cores."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from precompute.cores import usable_cores
from precompute.encoders.base import Encoder
from vqa_cache.table import Table


class Floor:
    """The floor of one table, measured again each turn.

    Attributes:
        seconds: of each turn: of the forward passes, and of decoding divided by the cores.
    """

    def __init__(self, encoder: Encoder, table: Table, files: list[Path]) -> None:
        self.seconds: list[tuple[float, float]] = []
        self._encoder, self._files = encoder, files
        self._bf16 = table.record.precision == "bf16"
        items = [encoder.prepare(str(file)) for file in files]
        size = table.record.batch_plan.size
        self._batches = [
            torch.stack(items[start : start + size]).contiguous(memory_format=torch.channels_last)
            for start in range(0, len(items), size)
        ]

    def turn(self) -> float:
        """Measure both; the number of images."""
        model: Any = self._encoder.module
        began = time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            for batch in self._batches:
                model.forward_head(model.forward_features(batch), pre_logits=True)
        forward = time.perf_counter() - began
        with one_thread():  # its waiting would count as processor time
            began = time.process_time()
            for file in self._files:
                self._encoder.prepare(str(file))
            decoding = time.process_time() - began
        self.seconds.append((forward, decoding / usable_cores()))
        return float(len(self._files))

    def told(self, speeds: list[float]) -> dict[str, float]:
        """Medians of the floor over stage 1's time, and of the floor's two parts.

        Args:
            speeds: images a second of stage 1, a figure for each turn but the first, which warmed
                up.
        """
        forward, decoding = zip(*self.seconds[1:], strict=True)
        shares = [
            speed * (one + other) / len(self._files)
            for speed, one, other in zip(speeds, forward, decoding, strict=True)
        ]
        return {
            "vs_floor": round(statistics.median(shares), 3),
            "forward_seconds": round(statistics.median(forward), 3),
            "decoding_seconds": round(statistics.median(decoding), 3),
        }


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
