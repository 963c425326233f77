"""What is computed and stored, what does not fit, and the probe items."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import begin

from precompute import numerics
from precompute.canaries import COUNT, check_drift, measure, prepared_canaries
from precompute.encoders.base import Encoder
from precompute.errors import PrecomputeError
from precompute.numerics import MOST_LOST, Numerics, check_stored, raw_rows, to_stored, underflow
from precompute.tables import _notes
from vqa_cache.errors import CacheError, RefusedError
from vqa_cache.keys import canonical_json
from vqa_cache.quantised import canary_rows
from vqa_cache.spec import EncoderSpec
from vqa_cache.system import bf16_gain
from vqa_cache.table import Table


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_rows_as_bytes(dtype: str) -> None:
    rows = torch.tensor([[1.5, -2.0], [0.0, 3.0]])
    stored = to_stored(rows, dtype)
    raw = raw_rows(stored)
    assert raw.dtype == ("uint16" if dtype == "bfloat16" else dtype)
    assert raw.tobytes() == stored.view(torch.uint8).numpy().tobytes()
    assert check_stored(rows, stored) == {}


def test_what_does_not_fit_names_the_value_and_the_remedy() -> None:
    rows = torch.tensor([[1.0, 2.0], [-70000.0, 3.0], [65504.0, 0.0]])
    wrong = check_stored(rows, to_stored(rows, "float16"))
    assert list(wrong) == [1]
    assert wrong[1].startswith("value 70000 does not fit in float16 (at most 65504)")
    assert "--dtype bf16" in wrong[1]
    assert check_stored(rows, to_stored(rows, "bfloat16")) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_the_encoders_fault(value: float) -> None:
    rows = torch.zeros(3, 2, 2)
    rows[2, 1, 0] = value
    for dtype in ("float16", "float32", "bfloat16", "int8"):
        assert check_stored(rows, to_stored(rows, dtype)) == {
            2: "the encoder's output is not finite"
        }


@pytest.mark.parametrize("largest", [1e-8, -1e-7, 1e-6])
def test_rows_too_small_for_the_stored_type_name_the_value_and_the_remedy(largest: float) -> None:
    rows = torch.tensor([[1.0, 1e-9], [0.0, largest], [0.0, 0.0]])
    wrong = check_stored(rows, to_stored(rows, "float16"))
    assert list(wrong) == [1]
    assert wrong[1].startswith(
        f"all values are tiny (at most {abs(largest):.3g}) and float16 keeps"
    )
    assert "--dtype bf16" in wrong[1]
    for dtype in ("bfloat16", "float32"):
        assert check_stored(rows, to_stored(rows, dtype)) == {}


def test_no_rounding_of_a_stored_type_counts_as_lost() -> None:
    """Half a step at the worst place is 2**-11 of a value in fp16, 2**-9 in bf16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = (0.1 + torch.rand(2000, 1)) * 10.0 ** torch.randint(-3, 4, (2000, 1))
    for dtype in ("float16", "bfloat16"):
        stored = to_stored(rows, dtype)
        assert check_stored(rows, stored) == {}
        assert ((rows - stored.float()).abs() / rows).max() < MOST_LOST / 2


def test_the_share_of_values_that_become_zero() -> None:
    rows = torch.tensor([[1.0, 1e-9, 0.0], [1e-9, 2.0, 3.0]])
    assert underflow(rows, to_stored(rows, "float16")) == pytest.approx(2 / 5)
    assert underflow(rows, to_stored(rows, "bfloat16")) == 0
    assert underflow(torch.zeros(2, 2), torch.zeros(2, 2).half()) == 0


class Texts(Encoder):
    """Rows of [length, length * gain]."""

    modality = "text"
    library = "test"
    label = "lengths"
    row_shape = (2,)
    pooling = "none"
    batch_size = 4
    batch_kind = "in-order"
    gain = 1.0

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(EncoderSpec("hf", "lengths", None, "mean"), torch.nn.Linear(2, 2))
        self.gain = gain

    def prepare(self, item: str) -> int:
        return len(item)

    def length(self, prepared: int) -> int:
        return prepared

    def collate(self, prepared: Sequence[int]) -> torch.Tensor:
        return torch.tensor(prepared, dtype=torch.float32)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def rows(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        lengths = inputs
        return torch.stack([lengths, lengths * self.gain], dim=1)

    def architecture(self) -> dict[str, Any]:
        return {}

    def preprocessing(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A table whose record holds the canaries of Texts(1)."""
    made = begin(tmp_path / "cache", modality="text", row_shape=(2,))
    canaries = measure(Texts(), Numerics("fp32"), "float16").recorded()
    record = replace(made.record, canaries=canaries, threads=torch.get_num_threads())
    monkeypatch.setattr(made, "record", record)
    return made


def test_canaries_are_kept_as_they_are_stored(table: Table) -> None:
    kept = table.record.canaries
    assert kept.count == COUNT == 4
    assert kept.cosine_worst == kept.cosine_mean == 1.0
    assert len(kept.rows) == 4 * 2 * 2
    rows = canary_rows(table.record)
    assert rows.dtype == torch.float16
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    check_drift(table, Texts(), Numerics("fp32"))


def test_a_changed_encoder_is_refused(table: Table) -> None:
    check_drift(table, Texts(1.001), Numerics("fp32"))
    with pytest.raises(RefusedError, match=r"worst cosine to the stored ones is 0\.9\d+, expected"):
        check_drift(table, Texts(2.0), Numerics("fp32"))
    with pytest.raises(RefusedError):
        check_drift(table, Texts(float("nan")), Numerics("fp32"))


def test_a_row_that_only_changed_its_length_is_drift(table: Table) -> None:
    """A normalisation that a library adds or drops leaves every cosine at one."""

    class Scaled(Texts):
        scale = 1.0

        def rows(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            return super().rows(output, inputs) * self.scale

    encoder = Scaled()
    encoder.scale = 1.005
    check_drift(table, encoder, Numerics("fp32"))
    encoder.scale = 0.5
    with pytest.raises(RefusedError, match=r"length differs by 50\.00% .* expected at most 1%"):
        check_drift(table, encoder, Numerics("fp32"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_record_holds_the_cosine_to_fp32(dtype: str, precision: Any) -> None:
    class Linear(Texts):
        def rows(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            rows = torch.stack([inputs, torch.full_like(inputs, 1.001)], dim=1)
            return self.module(rows)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Linear()
    measured = measure(encoder, Numerics(precision), dtype)
    items = prepared_canaries(encoder)
    exact = Numerics("fp32").encode(encoder, items).double()
    kept = measured.rows.double()
    cosines = torch.nn.functional.cosine_similarity(kept, exact, dim=1)
    assert measured.cosine_worst == pytest.approx(float(cosines.min()), abs=1e-6)
    assert measured.cosine_mean == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert torch.equal(kept, exact) == (dtype == "float32" and precision == "fp32")


def test_another_thread_count_must_match_bit_for_bit(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "record", replace(table.record, threads=16))
    check_drift(table, Texts(), Numerics("fp32"))
    with pytest.raises(RefusedError, match=r"begun with 16 threads.*OMP_NUM_THREADS=16"):
        check_drift(table, Texts(1.001), Numerics("fp32"))


def test_rows_of_zeros_are_no_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cosine says nothing about a row of zeros, which a rectified block can give."""

    class Zeros(Texts):
        def rows(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(inputs), 2)

    table = begin(tmp_path / "cache", modality="text", row_shape=(2,))
    measured = measure(Zeros(), Numerics("fp32"), "float16")
    monkeypatch.setattr(table, "record", replace(table.record, canaries=measured.recorded()))
    monkeypatch.setattr(table, "record", replace(table.record, threads=torch.get_num_threads()))
    check_drift(table, Zeros(), Numerics("fp32"))
    with pytest.raises(RefusedError):
        check_drift(table, Texts(), Numerics("fp32"))


@pytest.mark.parametrize("gain", [1e6, float("nan")])
def test_canaries_that_do_not_fit_make_no_broken_record(gain: float) -> None:
    """The cosine of such rows is no number, which no record can hold."""
    with suppress(PrecomputeError, CacheError):  # a clear error is as good
        canonical_json(measure(Texts(gain), Numerics("fp32"), "float16").recorded().as_json())


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (float("nan"), r"a probe item's row cannot be stored: the encoder's output is not finite"),
        (1e6, r"a probe item's row cannot be stored: value .* does not fit in float16"),
    ],
)
def test_probe_rows_that_cannot_be_stored_are_one_sentence(gain: float, told: str) -> None:
    with pytest.raises(PrecomputeError, match=told):
        measure(Texts(gain), Numerics("fp32"), "float16")


def test_values_lost_to_zero_are_recorded_and_told(tmp_path: Path) -> None:
    class Small(Texts):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) * torch.tensor([1.0, 1e-11])

    measured = measure(Small(), Numerics("fp32"), "float16")
    assert measured.underflow == 0.5
    table = begin(tmp_path / "cache", modality="text", row_shape=(2,))
    assert _notes(table) == ()
    table.record = replace(table.record, canaries=measured.recorded())
    (told,) = _notes(table)
    assert "50.0% of the probe items' values are too small for float16" in told
    assert "--dtype bf16 or fp32" in told


def test_precision_is_chosen_by_measured_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Texts()
    for gains, expected in (([1.0], "fp32"), ([9.0, 1.0], "fp32"), ([9.0, 1.4], "bf16")):
        left = iter(gains)
        monkeypatch.setattr(bf16_gain, "gain", lambda *_, left=left: next(left))
        assert numerics.choose_precision(encoder, [1, 2]) == expected


def test_bf16_computes_in_bf16() -> None:
    class Linear(Texts):
        def rows(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            return self.module(torch.stack([inputs, torch.full_like(inputs, 1.001)], dim=1))

    encoder = Linear()
    exact = Numerics("fp32").encode(encoder, [1, 2])
    fast = Numerics("bf16").encode(encoder, [1, 2])
    assert exact.dtype == fast.dtype == torch.float32
    assert not torch.equal(exact, fast)
    assert torch.equal(fast, fast.bfloat16().float())
