"""Probe items that every table stores rows of: they tell a changed machine, library or driver.

The items are made here from a fixed seed, so that they need no dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from precompute.encoders.base import Encoder
from precompute.errors import EncoderError
from precompute.numerics import Numerics, check_stored, to_stored, underflow
from vqa_cache.errors import RefusedError
from vqa_cache.quantised import canary_rows, widened
from vqa_cache.records.table import Canaries
from vqa_cache.system.device import CPU
from vqa_cache.table import Table

COUNT = 4
DRIFT_COSINE = 0.9999
DRIFT_LENGTH = 0.01  # of a row's Euclidean length, which a cosine does not see
_REMEDY = (
    "library, driver or machine changed what the encoder computes; go back to what the table's "
    "record names under environment, or make a new cache"
)
_TEXTS = (
    "yes",
    "What color is the small circle?",
    "Is there a red square to the left of the largest triangle in this picture?",
    "How many people are standing behind the table with the white cloth, and is any of them "
    "wearing a hat?",
)


def prepared_canaries(encoder: Encoder) -> list[Any]:
    """The probe items, preprocessed by the encoder's own path."""
    if encoder.modality == "text":
        return [encoder.prepare(text) for text in _TEXTS]
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(COUNT)]
        for number, path in enumerate(paths):
            path.write_bytes(_probe_image(number))
        return [encoder.prepare(str(path)) for path in paths]


@cache  # of many tables in one run; Pillow takes 20 ms for each
def _probe_image(seed: int) -> bytes:
    """A smooth gradient with a few rectangles, 320x240, as PNG."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:240, 0:320]
    waves = [np.sin(x * draw.uniform(0.005, 0.05) + y * draw.uniform(0.005, 0.05)) for _ in "rgb"]
    pixels = (np.stack(waves, axis=2) * 100 + 128).astype(np.uint8)
    for _ in range(5):
        left, top = draw.integers(0, 280), draw.integers(0, 200)
        pixels[top : top + 40, left : left + 40] = draw.integers(0, 256, size=3)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True)
class Measured:
    """Canary rows [COUNT, *stored_shape] in the stored type (of a ragged table [tokens,
    *stored_shape]), their cosine to fp32 rows, and the share of values that became zero."""

    rows: torch.Tensor
    cosine_worst: float
    cosine_mean: float
    underflow: float

    def recorded(self) -> Canaries:
        """As a table's record has them."""
        raw = self.rows.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return Canaries(len(self.rows), raw, self.cosine_worst, self.cosine_mean, self.underflow)


def measure(encoder: Encoder, numerics: Numerics, dtype: str) -> Measured:
    """Encode the canaries as the table will be, and in fp32."""
    items = prepared_canaries(encoder)
    computed = numerics.encode(encoder, items)
    fp32 = Numerics("fp32")
    exact = computed if numerics == fp32 else fp32.encode(encoder, items)
    stored = to_stored(computed, dtype)
    wrong = check_stored(computed, stored) | check_stored(exact, to_stored(exact, dtype))
    for error in wrong.values():
        raise EncoderError(f"encoder {encoder.spec}: a probe item's row cannot be stored: {error}")
    cosines = _cosines(widened(stored), exact)
    # rounded: the last digits of a sum are not worth a difference between two machines' records
    worst, mean = round(float(cosines.min()), 6), round(float(cosines.mean()), 6)
    return Measured(stored, worst, mean, round(underflow(computed, stored), 6))


def _cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = a.double().flatten(1), b.double().flatten(1)
    cosines = torch.nn.functional.cosine_similarity(a, b, dim=1)
    return torch.where((a == b).all(1), torch.ones_like(cosines), cosines)  # rows of zeros too


def check_drift(table: Table, encoder: Encoder, numerics: Numerics) -> None:
    """Encode the canaries again before rows are added to a table.

    Raises:
        RefusedError: on a CPU, with another number of threads than recorded, they differ in any
            bit; or else their cosine to the stored ones is below DRIFT_COSINE, or the length of a
            row differs by more than DRIFT_LENGTH.
    """
    stored = canary_rows(table.record)
    now = to_stored(numerics.encode(encoder, prepared_canaries(encoder)), table.dtype)
    threads, recorded = torch.get_num_threads(), table.record.threads
    on_cpus = encoder.device == CPU and table.record.device in (None, "cpu")
    if on_cpus and threads != recorded and not torch.equal(now, stored):
        raise RefusedError(
            f"table {table.name}: was begun with {recorded} threads, and with {threads} the "
            f"canaries differ; use the recorded number: OMP_NUM_THREADS={recorded}"
        )
    if now.shape != stored.shape:
        raise RefusedError(
            f"table {table.name}: the canaries' rows are {list(now.shape)}, stored were "
            f"{list(stored.shape)}; {_REMEDY}"
        )
    now, stored = widened(now), widened(stored)
    worst = float(_cosines(now, stored).min())
    if not worst >= DRIFT_COSINE:  # NaN is drift as well
        raise RefusedError(
            f"table {table.name}: the canaries' worst cosine to the stored ones is {worst:.6f}, "
            f"expected at least {DRIFT_COSINE}; {_REMEDY}"
        )
    change = _length_change(now, stored)
    if not change <= DRIFT_LENGTH:
        raise RefusedError(
            f"table {table.name}: a canary's length differs by {change:.2%} from the stored one, "
            f"expected at most {DRIFT_LENGTH:.0%}; {_REMEDY}"
        )


def _length_change(now: torch.Tensor, stored: torch.Tensor) -> float:
    """The largest relative change of a row's Euclidean length; a row of zeros must stay one."""
    lengths = now.double().flatten(1).norm(dim=1), stored.double().flatten(1).norm(dim=1)
    changes = (lengths[0] - lengths[1]).abs() / lengths[1]
    return float(torch.where(lengths[0] == lengths[1], torch.zeros_like(changes), changes).max())
